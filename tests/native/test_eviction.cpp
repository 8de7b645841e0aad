// Eviction policies and the replay from C++: nothing is allocated once a policy is attached, what it names is
// evictable, and random calls under the sanitizers. Decisions are compared with the plain models in tests/differential.
#include <infcore/base/errors.hpp>
#include <infcore/cache/eviction_policy.hpp>
#include <infcore/cache/ghost_keys.hpp>
#include <infcore/cache/replay.hpp>
#include <infcore/cache/told_entries.hpp>

#include "counted_new.hpp"

#include <gtest/gtest.h>
#include <algorithm>
#include <deque>
#include <random>
#include <vector>

namespace infcore::cache {
namespace {

using contracts::EntryId;
using contracts::no_entry;

/// An owner that holds some of its entries and lets go what the policy names.
struct Owner {
  static constexpr std::uint32_t n_max = 64;
  ToldEntries entries;
  std::unique_ptr<contracts::EvictionPolicy> policy;
  std::mt19937_64 draw{7};
  std::vector<int> state = std::vector<int>(n_max, 0);  // 0 not in, 1 held, 2 evictable
  std::vector<EntryId> ids;

  explicit Owner(const std::string& name) : policy(make_eviction_policy(name)) {
    entries.grow(n_max);
    policy->attach(entries, {.n_entries_max = n_max, .capacity_bytes = 20'000});
    ids.reserve(n_max);
  }

  void step() {
    const EntryId id = static_cast<EntryId>(draw() % n_max);
    const std::uint64_t call = draw() % 10;
    if (state[id] == 0) {
      const std::uint64_t next_use = draw() % 4 == 0 ? contracts::EvictionEntry::unknown_use : draw() % 100'000;
      entries.tell(id,
                   {draw() % 200, 1 + draw() % 1000, static_cast<double>(draw() % 1'000'000), 0, false, 1.0, next_use});
      policy->on_insert(id);
      state[id] = 1;
    } else if (call < 4) {
      ids.clear();
      for (EntryId other = 0; other < n_max; ++other)
        if (other == id || (call == 0 && state[other] != 0)) ids.push_back(other);
      call % 2 == 0 ? policy->on_hit(ids) : policy->on_release(ids);
    } else if (call < 8) {
      state[id] == 1 ? policy->on_evictable(id) : policy->on_held(id);
      state[id] = 3 - state[id];
    } else if (call == 8) {
      policy->on_remove(id);
      state[id] = 0;
    } else {
      const EntryId victim = policy->victim();
      ASSERT_EQ(victim, policy->victim());
      const bool any = std::find(state.begin(), state.end(), 2) != state.end();
      ASSERT_EQ(any, victim != no_entry);
      if (!any) return;
      ASSERT_EQ(state[victim], 2);
      policy->on_remove(victim);
      state[victim] = 0;
    }
  }
};

TEST(Eviction, NamesWhatIsEvictableAndAllocatesNothing) {
  for (const std::string& name : eviction_policies()) {
    Owner owner(name);
    owner.step();
    const std::size_t before = n_allocations;
    for (int i = 0; i < 100'000 && !testing::Test::HasFatalFailure(); ++i) owner.step();
    EXPECT_EQ(n_allocations, before) << name;
    EXPECT_FALSE(testing::Test::HasFatalFailure()) << name;
  }
}

TEST(GhostKeys, RememberTheLastAsMany) {
  std::mt19937_64 draw(3);
  GhostKeys ghosts;
  std::uint32_t n_max = 5;
  ghosts.grow(n_max);
  std::deque<std::uint64_t> plain;  // no_key: taken, or came again
  constexpr std::uint64_t no_key = 1'000;
  for (int i = 0; i < 50'000; ++i) {
    if (i % 10'000 == 9'999) ghosts.grow(n_max *= 2);
    const std::uint64_t key = draw() % 200;
    const auto known = std::find(plain.begin(), plain.end(), key);
    if (draw() % 3 == 0) {
      const std::uint64_t n_latest = 1 + draw() % n_max;
      const bool is_there = known != plain.end() && plain.end() - known <= static_cast<std::ptrdiff_t>(n_latest);
      ASSERT_EQ(ghosts.take(key, n_latest), is_there) << i;
      if (known != plain.end()) *known = no_key;
    } else {
      if (known != plain.end()) *known = no_key;
      plain.push_back(key);
      if (plain.size() > n_max) plain.pop_front();
      ghosts.remember(key);
    }
  }
}

TEST(Replay, CountsAddUpUnderEveryPolicy) {
  std::mt19937_64 draw(11);
  constexpr std::size_t n = 20'000;
  std::vector<std::uint64_t> keys(n), bytes(n);
  std::vector<double> costs(n), times(n);
  std::vector<std::int64_t> requests(n);
  std::vector<std::uint8_t> admitted(n);
  for (std::size_t i = 0; i < n; ++i) {
    keys[i] = draw() % (1 + draw() % 6000);
    bytes[i] = keys[i] % 100;
    costs[i] = static_cast<double>(draw() % 1000);
    times[i] = static_cast<double>(i);
    requests[i] = static_cast<std::int64_t>(i / 7);
    admitted[i] = draw() % 20 != 0;
  }
  ReplayTrace plain{
      .n = n, .keys = keys.data(), .bytes = bytes.data(), .costs_us = costs.data(), .times_s = times.data()};
  plain.is_admitted = admitted.data();
  ReplayTrace prompts = plain;
  prompts.requests = requests.data();
  for (const std::string& name : eviction_policies()) {
    for (const std::uint64_t capacity : {0u, 50u, 20'000u, 1'000'000u}) {
      for (const ReplayTrace& trace : {plain, prompts}) {
        const double ttl_s = trace.requests == nullptr ? 3000.0 : std::numeric_limits<double>::infinity();
        const auto policy = make_eviction_policy(name);
        const ReplayStats stats = replay(trace, {.capacity_bytes = capacity, .ttl_s = ttl_s}, *policy);
        EXPECT_EQ(stats.hits + stats.misses, n);
        EXPECT_LE(stats.bytes_used, capacity);
        EXPECT_LE(stats.evictions + stats.rejected, stats.misses);
        EXPECT_LE(stats.bytes_missed, stats.bytes_requested);
      }
    }
  }
}

}  // namespace
}  // namespace infcore::cache
