// Names of blocks, KVBlocks and ContinuousBatcher from C++: collisions and avalanche, no allocation once warm, and
// random calls under the sanitizers. Decisions are compared with the plain models in tests/differential.
#include <infcore/base/errors.hpp>
#include <infcore/batch/continuous_batcher.hpp>
#include <infcore/cache/eviction_policy.hpp>
#include <infcore/contracts/block_hash.hpp>

#include "counted_new.hpp"

#include <gtest/gtest.h>
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <random>
#include <vector>

namespace infcore::batch {
namespace {

using contracts::chain;
using contracts::chain_start;

TEST(BlockHash, MillionsOfBlocksThatDifferLittleHaveMillionsOfNames) {
  // Two tokens of sixteen differ from 0, by small numbers: what a weak sum confuses. And words in every place.
  std::vector<std::uint64_t> names;
  std::array<std::int32_t, 16> tokens{};
  const std::uint64_t start = chain_start(16, 0);
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = i + 1; j < 16; ++j) {
      for (std::int32_t a = 1; a <= 128; ++a) {
        for (std::int32_t b = 1; b <= 128; ++b) {
          tokens[i] = a;
          tokens[j] = b;
          names.push_back(chain(start, tokens.data(), 16));
        }
      }
      tokens[i] = tokens[j] = 0;
    }
  }
  ASSERT_EQ(names.size(), 120u * 128u * 128u);
  std::ranges::sort(names);
  EXPECT_EQ(std::ranges::adjacent_find(names), names.end());
}

TEST(BlockHash, HalvesOfNamesCollideAsChanceWouldHaveIt) {
  // 64 bits can't be tested for collisions, 32 of them can: n^2 / 2^33 pairs are expected in either half.
  constexpr std::uint32_t n = 1u << 19;
  constexpr double expected = static_cast<double>(n) * n / 8589934592.0;
  std::vector<std::uint32_t> low(n), high(n);
  std::uint64_t name = chain_start(2, 9);
  for (std::uint32_t i = 0; i < n; ++i) {
    const std::int64_t tokens[2] = {7, i};
    name = chain(chain_start(2, 9), tokens, 2);
    low[i] = static_cast<std::uint32_t>(name);
    high[i] = static_cast<std::uint32_t>(name >> 32);
  }
  for (std::vector<std::uint32_t>* const half : {&low, &high}) {
    std::ranges::sort(*half);
    int n_pairs = 0;
    for (std::uint32_t i = 1; i < n; ++i) n_pairs += (*half)[i] == (*half)[i - 1] ? 1 : 0;
    EXPECT_NEAR(n_pairs, expected, 6.0 * std::sqrt(expected));
  }
}

TEST(BlockHash, EveryBitOfTheInputMovesHalfOfTheName) {
  std::mt19937_64 draw(1);
  constexpr int n_trials = 400;
  double least = 64.0, most = 0.0;
  for (const std::uint32_t block_size : {1u, 16u, 19u}) {
    for (std::uint32_t bit = 0; bit < 32 * block_size + 64; ++bit) {
      int n_moved = 0;
      for (int trial = 0; trial < n_trials; ++trial) {
        std::vector<std::int32_t> tokens(block_size);
        for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(draw() % 150000);
        std::uint64_t before = draw();
        const std::uint64_t name = chain(before, tokens.data(), block_size);
        if (bit < 64) {
          before ^= std::uint64_t{1} << bit;
        } else {
          tokens[(bit - 64) / 32] ^= static_cast<std::int32_t>(1u << (bit % 32));
        }
        n_moved += std::popcount(name ^ chain(before, tokens.data(), block_size));
      }
      least = std::min(least, static_cast<double>(n_moved) / n_trials);
      most = std::max(most, static_cast<double>(n_moved) / n_trials);
    }
  }
  // The mean of 400 draws of 64 coins has a spread of 0.2; over a thousand bits, six of it.
  EXPECT_GT(least, 30.8);
  EXPECT_LT(most, 33.2);
}

struct Rig {
  KVBlocks kv;
  ContinuousBatcher batcher;
  std::mt19937 source;
  std::vector<SequenceId> ids;
  std::vector<std::int64_t> tokens = std::vector<std::int64_t>(64);
  std::vector<std::uint8_t> ended = std::vector<std::uint8_t>(64);

  Rig(const KVBlocksConfig& blocks, const ContinuousBatcherConfig& config, unsigned seed)
      : kv(blocks, cache::make_eviction_policy("lru")), batcher(kv, config), source(seed) {}

  std::uint32_t draw() { return static_cast<std::uint32_t>(source()); }

  void add(base::TimeNs now_ns) {
    const std::uint32_t n_prompt = 1 + draw() % 60;
    std::vector<std::int64_t> prompt(n_prompt, 1);
    for (std::uint32_t i = draw() % n_prompt; i < n_prompt; ++i) prompt[i] = draw() % 3;
    const std::uint32_t n_full = n_prompt / kv.block_size();
    std::vector<std::uint64_t> names(n_full);
    contracts::hash_blocks(prompt.data(), kv.block_size(), 0, std::span(names));
    SequenceSpec spec;
    spec.arrival_ns = now_ns;
    spec.deadline_ns = draw() % 4 == 0 ? now_ns + 20 : base::never_ns;
    spec.tier = static_cast<std::uint16_t>(draw() % 3);
    spec.n_prompt_tokens = n_prompt;
    spec.n_output_tokens_max = draw() % 30;
    spec.prompt_hashes = names;
    spec.prompt_tail = std::span(prompt).subspan(n_full * kv.block_size());
    ids.push_back(batcher.add(spec));
  }

  void step(base::TimeNs now_ns) {
    const TokenStep& step = batcher.step(now_ns);
    std::uint64_t n_tokens = 0;
    for (const TokenRow& row : step.rows) {
      n_tokens += row.n_tokens;
      ASSERT_GE(std::size_t{row.n_blocks} * kv.block_size(), row.first_position + row.n_tokens);
      for (const BlockId block : batcher.blocks(row)) ASSERT_GT(kv.n_uses(block), 0u);
    }
    ASSERT_EQ(n_tokens, step.work.n_prefill_tokens + step.work.n_decode_rows);
    for (std::size_t i = 0; i < step.rows.size(); ++i) ended[i] = draw() % 64 == 0;
    batcher.advance(std::span(tokens).first(step.rows.size()), std::span(ended).first(step.rows.size()));
  }
};

constexpr ContinuousBatcherConfig small_steps{.token_budget = 96,
                                              .max_running = 16,
                                              .max_sequences = 64,
                                              .ageing_ns = 300,
                                              .curve = {.per_prefill_token_s = 1.0}};

TEST(ContinuousBatcher, AllocatesNothingInAStepOnceWarm) {
  Rig rig({.n_blocks = 64, .block_size = 4, .n_host_blocks = 24}, small_steps, 1);
  std::size_t n_in_steps = 0;
  for (int round = 0; round < 600; ++round) {
    while (rig.batcher.n_waiting() < 20) rig.add(round);
    const std::size_t before = n_allocations;
    rig.step(round);
    if (round >= 300) n_in_steps += n_allocations - before;
  }
  EXPECT_EQ(n_in_steps, 0u);
  EXPECT_GT(rig.batcher.n_preempted(), 20u);
  EXPECT_GT(rig.batcher.n_swapped_out(), 10u);
  EXPECT_GT(rig.kv.n_evicted(), 100u);
}

TEST(ContinuousBatcher, RandomCallsLeaveNoBlockBehind) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    Rig rig({.n_blocks = 20 + seed * 4, .block_size = 1 + seed % 7, .n_host_blocks = seed % 3 * 10}, small_steps, seed);
    for (int round = 0; round < 300; ++round) {
      try {
        if (rig.draw() % 2 == 0) rig.add(round);
        if (rig.draw() % 8 == 0 && !rig.ids.empty()) {
          rig.ids.push_back(rig.batcher.fork(rig.ids[rig.draw() % rig.ids.size()], 0));
        }
      } catch (const Error&) {  // it can never fit, the batcher is full, or the id has ended
      }
      if (rig.draw() % 4 == 0 && !rig.ids.empty()) {
        static_cast<void>(rig.batcher.cancel(rig.ids[rig.draw() % rig.ids.size()]));
      }
      rig.step(round);
    }
    for (const SequenceId id : rig.ids) static_cast<void>(rig.batcher.cancel(id));
    EXPECT_EQ(rig.batcher.n_running() + rig.batcher.n_waiting(), 0u);
    EXPECT_EQ(rig.kv.n_available(), rig.kv.n_blocks());
    rig.step(300);
    EXPECT_EQ(rig.kv.n_host_free(), rig.kv.n_host_blocks());
    rig.kv.drop_cached();
    EXPECT_EQ(rig.kv.n_free(), rig.kv.n_blocks());
  }
}

TEST(ContinuousBatcher, GivesItsBlocksBackWhenItGoes) {
  KVBlocks kv({.n_blocks = 8, .block_size = 4, .n_host_blocks = 0}, cache::make_eviction_policy("lru"));
  {
    ContinuousBatcher batcher(kv, {.max_running = 2, .max_sequences = 2});
    batcher.add({.n_prompt_tokens = 9, .n_output_tokens_max = 4});
    EXPECT_EQ(batcher.step(0).rows.size(), 1u);
    EXPECT_EQ(kv.n_available(), 5u);
    EXPECT_THROW(ContinuousBatcher(kv, {}), InvalidArgument);
  }
  EXPECT_EQ(kv.n_available(), 8u);
}

}  // namespace
}  // namespace infcore::batch
