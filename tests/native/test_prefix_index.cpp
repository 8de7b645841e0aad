// The prefix index against a plain one: random prefixes that come, go from their ends or from the middle, and leave
// with their nodes; and full ones, where only what must hold always is checked.
#include <gtest/gtest.h>

#include <infcore/base/draw.hpp>
#include <infcore/base/errors.hpp>
#include <infcore/route/engine_blocks.hpp>
#include <infcore/route/prefix_index.hpp>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <vector>

namespace {

using infcore::base::NodeId;
using infcore::route::EngineBlocks;
using infcore::route::KvTier;
using infcore::route::PrefixConfig;
using infcore::route::PrefixIndex;

using Blocks = std::vector<std::uint64_t>;
constexpr std::array<KvTier, 3> tiers{KvTier::device, KvTier::host, KvTier::disk};

std::uint32_t below(infcore::base::Draw& draw, std::size_t n) { return static_cast<std::uint32_t>(draw.bits() % n); }

PrefixConfig config_of(std::uint32_t max_nodes, std::uint32_t max_blocks = 1 << 16) {
  PrefixConfig config;
  config.max_nodes = max_nodes;
  config.max_blocks = max_blocks;
  return config;
}

/// Who holds what, said plainly.
struct Plain {
  std::map<std::uint64_t, std::map<std::uint32_t, std::set<KvTier>>> holders;

  [[nodiscard]] std::map<std::uint32_t, std::pair<std::int32_t, float>> depths(const Blocks& blocks,
                                                                               const PrefixConfig& config) const {
    std::map<std::uint32_t, std::pair<std::int32_t, float>> found;
    const auto first = holders.find(blocks.front());
    if (first == holders.end()) return found;
    for (const auto& [node, on_first] : first->second) {
      std::pair<std::int32_t, float> depth{0, 0.0f};
      for (const std::uint64_t block : blocks) {
        const auto at = holders.find(block);
        if (at == holders.end() || !at->second.contains(node)) break;
        const auto& on = at->second.at(node);
        depth.first += 1;
        depth.second += on.contains(KvTier::device) ? 1.0f
                        : on.contains(KvTier::host) ? config.host_credit
                                                    : config.disk_credit;
      }
      found[node] = depth;
    }
    return found;
  }
  [[nodiscard]] std::size_t n_blocks() const {
    return static_cast<std::size_t>(
        std::count_if(holders.begin(), holders.end(), [](const auto& each) { return !each.second.empty(); }));
  }
};

std::map<std::uint32_t, std::int32_t> matched(const PrefixIndex& index, const Blocks& blocks) {
  const PrefixIndex::Match match = index.match(blocks);
  std::map<std::uint32_t, std::int32_t> found;
  for (std::size_t i = 0; i < match.nodes.size(); ++i)
    found[static_cast<std::uint32_t>(match.nodes[i])] = match.held[i];
  EXPECT_EQ(found.size(), match.nodes.size());
  return found;
}

void expect_same(const PrefixIndex& index, const Plain& plain, const Blocks& blocks) {
  const auto wanted = plain.depths(blocks, index.config());
  std::map<std::uint32_t, std::int32_t> depths;
  for (const auto& [node, depth] : wanted) depths[node] = depth.first;
  ASSERT_EQ(matched(index, blocks), depths);
  std::vector<float> column((index.config().max_nodes + 63) / 64 * 64, -1.0f);
  ASSERT_EQ(index.held(blocks, column), !wanted.empty());
  for (const auto& [node, depth] : wanted) {
    ASSERT_EQ(column[node], depth.second) << node;
    column[node] = 0.0f;
  }
  ASSERT_TRUE(std::all_of(column.begin(), column.end(), [](float value) { return value == 0.0f; }));
}

/// A tree of prefixes: each block's hash says which path leads to it.
Blocks path(infcore::base::Draw& draw, std::size_t depth, std::uint32_t branching) {
  Blocks blocks;
  std::uint64_t at = 1;
  for (std::size_t i = 0; i < depth; ++i) {
    at = (at * 8 + 1 + (i % 3 == 0 ? below(draw, branching) : 0)) * 0x9e3779b97f4a7c15u;
    blocks.push_back(at);
  }
  return blocks;
}

class PrefixRandom : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(PrefixRandom, AgreesWithAPlainOne) {
  const std::uint32_t max_nodes = GetParam();
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    infcore::base::Draw draw(seed);
    PrefixIndex index(config_of(max_nodes));
    Plain plain;
    for (int step = 0; step < 300; ++step) {
      const NodeId node{below(draw, max_nodes)};
      const KvTier tier = tiers[below(draw, 4) == 0 ? below(draw, 3) : 0];
      Blocks blocks = path(draw, 1 + below(draw, 12), 3);
      const std::uint32_t what = below(draw, 20);
      if (what < 12) {
        ASSERT_EQ(index.stored(node, blocks, tier), blocks.size());
        for (const std::uint64_t block : blocks) plain.holders[block][node.value].insert(tier);
      } else if (what < 18) {
        const std::size_t from = what < 15 ? below(draw, blocks.size()) : 0;
        blocks.erase(blocks.begin(), blocks.begin() + static_cast<std::ptrdiff_t>(from));
        std::size_t n = 0;
        for (const std::uint64_t block : blocks) {
          auto& holders = plain.holders[block];
          if (!holders.contains(node.value)) continue;
          n += holders[node.value].erase(tier);
          if (holders[node.value].empty()) holders.erase(node.value);
        }
        ASSERT_EQ(index.removed(node, blocks, tier), n);
      } else {
        index.cleared(node);
        for (auto& [block, holders] : plain.holders) holders.erase(node.value);
      }
      ASSERT_EQ(index.stats().n_blocks, plain.n_blocks());
      ASSERT_NO_FATAL_FAILURE(expect_same(index, plain, path(draw, 1 + below(draw, 14), 3)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Nodes, PrefixRandom, ::testing::Values(1u, 5u, 64u, 65u, 300u, 10'000u));

TEST(PrefixIndex, StaysWithinItsBoundsWhateverComes) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    infcore::base::Draw draw(seed);
    const std::uint32_t max_blocks = 1 + below(draw, 200);
    PrefixIndex index(config_of(100, max_blocks));
    for (int step = 0; step < 1000; ++step) {
      const NodeId node{below(draw, 100)};
      const Blocks blocks = path(draw, 1 + below(draw, 30), 6);
      const std::uint64_t after = blocks.front();
      if (below(draw, 40) == 0) {
        index.cleared(node);
      } else if (below(draw, 5) == 0) {
        index.removed(node, std::span(blocks).subspan(below(draw, blocks.size())));
      } else if (below(draw, 5) == 0) {
        index.stored(node, std::span(blocks).subspan(1), KvTier::device, &after);
      } else {
        const std::size_t n = index.stored(node, blocks);
        ASSERT_EQ(n, std::min<std::size_t>(n, blocks.size()));
        const auto found = matched(index, blocks);
        ASSERT_TRUE(n == 0 || found.at(node.value) >= static_cast<std::int32_t>(n));
      }
      ASSERT_LE(index.stats().n_blocks, max_blocks);
    }
    for (NodeId node{0}; node.value < 100; ++node.value) index.cleared(node);
    ASSERT_EQ(index.stats().n_blocks, 0u);
    ASSERT_EQ(index.stored(NodeId{3}, Blocks{1, 2, 3}), std::min<std::size_t>(3, max_blocks));
  }
}

TEST(PrefixIndex, BytesOfABlockThatManyNodesHold) {
  constexpr std::uint32_t n_nodes = 1024, n_blocks = 20'000;
  PrefixIndex index(config_of(n_nodes, n_blocks));
  infcore::base::Draw draw(1);
  Blocks shared(n_blocks / 2);
  for (std::uint64_t& block : shared) block = draw.bits();
  for (NodeId node{0}; node.value < n_nodes; ++node.value) {
    index.stored(node, shared);
    Blocks own(8);
    for (std::uint64_t& block : own) block = draw.bits();
    index.stored(node, own, KvTier::device, &shared[node.value]);
  }
  const double bytes = static_cast<double>(index.stats().n_bytes) / static_cast<double>(index.stats().n_blocks);
  ::testing::Test::RecordProperty("bytes_per_block", static_cast<int>(bytes));
  EXPECT_LE(bytes, 40.0);
  EXPECT_EQ(matched(index, shared).size(), n_nodes);
}

TEST(PrefixIndex, TheLeafThatWasStoredLongestAgoGoesFirst) {
  PrefixIndex index(config_of(4, 6));
  index.stored(NodeId{0}, Blocks{1, 2, 3});
  index.stored(NodeId{1}, Blocks{1, 2, 4});
  index.stored(NodeId{0}, Blocks{1, 2, 3});  // again: now 4 is the older leaf
  index.stored(NodeId{2}, Blocks{10, 11, 12});
  EXPECT_EQ(matched(index, {1, 2, 4}), (std::map<std::uint32_t, std::int32_t>{{0, 2}, {1, 2}}));
  EXPECT_EQ(matched(index, {1, 2, 3}).at(0), 3);
  index.stored(NodeId{3}, Blocks{20, 21});  // 3 goes, then what was before it
  EXPECT_EQ(matched(index, {1, 2, 3}), (std::map<std::uint32_t, std::int32_t>{{0, 1}, {1, 1}}));
  EXPECT_EQ(index.stats().n_blocks, 6u);
}

TEST(PrefixIndex, PicksAreForgottenAndWhatNodesSayCounts) {
  PrefixConfig config = config_of(4);
  config.approximate = true;
  config.ttl_ns = 100;
  PrefixIndex index(config);
  const Blocks blocks{1, 2, 3};
  index.picked(NodeId{0}, blocks, 1000);
  index.picked(NodeId{1}, blocks, 1010);
  index.stored(NodeId{1}, Blocks{1});  // speaks: what was guessed of it is gone
  EXPECT_EQ(matched(index, blocks), (std::map<std::uint32_t, std::int32_t>{{0, 3}, {1, 1}}));
  index.picked(NodeId{1}, blocks, 1020);
  EXPECT_EQ(matched(index, blocks).at(1), 1);
  index.advance(1060);
  EXPECT_EQ(matched(index, blocks).at(0), 3);
  index.picked(NodeId{0}, Blocks{1, 2}, 1070);
  index.advance(1110);
  EXPECT_EQ(matched(index, blocks).at(0), 2);
  index.advance(1170);
  EXPECT_EQ(matched(index, blocks), (std::map<std::uint32_t, std::int32_t>{{1, 1}}));
  index.picked(NodeId{2}, blocks, 2000);
  index.advance(5000);
  EXPECT_FALSE(matched(index, blocks).contains(2));
}

TEST(PrefixIndex, ForgetsAPickBetweenHalfItsTimeAndAllOfIt) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    infcore::base::Draw draw(seed);
    PrefixConfig config = config_of(70);
    config.approximate = true;
    config.ttl_ns = 1000;
    PrefixIndex index(config);
    std::map<std::uint64_t, std::map<std::uint32_t, std::int64_t>> last;  // block, node: when it was picked for
    std::int64_t now_ns = 0;
    for (int step = 0; step < 400; ++step) {
      now_ns += below(draw, 100) == 0 ? below(draw, 3000) : below(draw, 40);
      const NodeId node{below(draw, 70)};
      const Blocks blocks = path(draw, 1 + below(draw, 12), 3), asked = path(draw, 1 + below(draw, 12), 3);
      index.picked(node, blocks, now_ns);
      for (const std::uint64_t block : blocks) last[block][node.value] = now_ns;
      index.advance(now_ns);
      const auto found = matched(index, asked);
      for (std::uint32_t each = 0; each < 70; ++each) {
        std::int32_t least = 0, most = 0;
        for (const std::uint64_t block : asked) {
          if (!last.contains(block) || !last[block].contains(each)) break;
          const std::int64_t age_ns = now_ns - last[block][each];
          if (age_ns >= config.ttl_ns) break;
          ++most;
          if (age_ns < config.ttl_ns / 2 && least == most - 1) ++least;
        }
        const std::int32_t is = found.contains(each) ? found.at(each) : 0;
        ASSERT_GE(is, least) << seed << " " << step;
        ASSERT_LE(is, most) << seed << " " << step;
      }
    }
  }
}

TEST(EngineBlocks, NeverSaysWhatItWasNotTold) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    infcore::base::Draw draw(seed);
    const std::uint32_t max_names = 1 + below(draw, 300);
    EngineBlocks names(3, max_names);
    std::map<std::pair<std::uint32_t, std::uint64_t>, std::uint64_t> told;
    std::size_t n_found = 0;
    for (int step = 0; step < 3000; ++step) {
      const NodeId node{below(draw, 3)};
      const std::uint64_t id = below(draw, 600);
      if (below(draw, 200) == 0) {
        names.clear_node(node);
        std::erase_if(told, [&](const auto& each) { return each.first.first == node.value; });
      } else if (below(draw, 3) == 0) {
        names.put(node, id, draw.bits());
        std::uint64_t block = 0;
        ASSERT_TRUE(names.find(node, id, block));
        told[{node.value, id}] = block;
      } else {
        std::uint64_t block = 0;
        if (!names.find(node, id, block)) continue;
        const std::pair<std::uint32_t, std::uint64_t> key{node.value, id};
        ASSERT_TRUE(told.contains(key));
        ASSERT_EQ(told[key], block);
        ++n_found;
      }
      ASSERT_LE(names.n_names(), max_names);
    }
    ASSERT_GT(n_found, 0u);
  }
}

TEST(PrefixIndex, RefusesWhatItCannotBe) {
  PrefixConfig config = config_of(4, 0);
  EXPECT_THROW(PrefixIndex{config}, infcore::InvalidArgument);
  config = config_of(4);
  config.host_credit = 1.5f;
  EXPECT_THROW(PrefixIndex{config}, infcore::InvalidArgument);
}

}  // namespace
