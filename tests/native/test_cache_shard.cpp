// The cache's table and its policy as one: threads that hammer a shard under its lock, which the thread sanitizer
// watches; entries that come and go at random, against a plain map.
#include <gtest/gtest.h>

#include <infcore/base/draw.hpp>
#include <infcore/cache/cache_shard.hpp>
#include <infcore/cache/eviction_policy.hpp>

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using infcore::base::Draw;
using infcore::cache::CacheShard;
using infcore::cache::EntryId;
using infcore::cache::NewEntry;
using infcore::cache::no_entry;
using Outcome = infcore::cache::CacheShard::Outcome;

std::uint32_t below(Draw& draw, std::uint32_t n) { return static_cast<std::uint32_t>(draw.bits() % n); }

/// Few different ones, so that searches pass by others' entries.
std::uint32_t hash_of(std::uint64_t key) { return static_cast<std::uint32_t>(key % 97) * 0x01000193u; }

EntryId find(const CacheShard& shard, std::uint64_t key) {
  const std::uint32_t hash = hash_of(key);
  auto probe = shard.probe(hash);
  while (probe.id != no_entry && shard.key(probe.id) != key) probe = shard.next(probe, hash);
  return probe.id;
}

NewEntry entry_of(std::uint64_t key, std::uint64_t bytes, double cost_us) {
  return {.key = key, .kind = 1, .bytes = bytes, .cost_us = cost_us, .tags = {}};
}

Outcome put(CacheShard& shard, const NewEntry& entry, std::int64_t now_ns, EntryId& id) {
  const Outcome outcome = shard.put(hash_of(entry.key), entry, find(shard, entry.key), now_ns, id);
  while (shard.take_gone() != no_entry) {
  }
  return outcome;
}

std::vector<std::string> online_policies() {
  std::vector<std::string> names;
  for (const std::string& name : infcore::cache::eviction_policies())
    if (name != "belady") names.push_back(name);
  return names;
}

class EachPolicy : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Cache, EachPolicy, testing::ValuesIn(online_policies()),
                         [](const auto& row) { return row.param; });

/// What is found is what was put last, and nothing is found that went; bytes agree at every step.
TEST_P(EachPolicy, FindsWhatWasPut) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Draw draw(seed);
    const std::uint64_t capacity = 1 + below(draw, 4000);
    CacheShard shard(capacity, infcore::cache::make_eviction_policy(GetParam()));
    std::map<std::uint64_t, std::uint64_t> bytes_of;  // of the last put that was stored; it may have been evicted
    for (int step = 0; step < 3000; ++step) {
      const std::uint64_t key = below(draw, 300);
      const EntryId id = find(shard, key);
      if (id != no_entry) {
        ASSERT_EQ(shard.told(id).bytes, bytes_of[key]);
        shard.hit(id);
      }
      if (below(draw, 3) == 0) continue;
      if (below(draw, 20) == 0 && id != no_entry) {
        shard.remove(id);
        ASSERT_EQ(shard.take_gone(), id);
        ASSERT_EQ(find(shard, key), no_entry);
        continue;
      }
      const std::uint64_t bytes = 1 + below(draw, 200);
      EntryId placed = no_entry;
      const Outcome outcome = put(shard, entry_of(key, bytes, below(draw, 50)), 0, placed);
      if (outcome == Outcome::stored) {
        bytes_of[key] = bytes;
        ASSERT_EQ(find(shard, key), placed);
      } else {
        ASSERT_EQ(find(shard, key), no_entry);
      }
      ASSERT_LE(shard.counters().bytes_used, capacity);
    }
    std::uint64_t used = 0, n = 0;
    for (EntryId id = 0; id < shard.n_ids(); ++id) {
      if (!shard.in_use(id)) continue;
      used += shard.told(id).bytes;
      ++n;
      ASSERT_EQ(find(shard, shard.key(id)), id);
    }
    EXPECT_EQ(shard.counters().bytes_used, used);
    EXPECT_EQ(shard.counters().n_entries, n);
    shard.clear();
    EXPECT_EQ(shard.counters().bytes_used, 0u);
  }
}

/// Two owners' threads at once, each call under the shard's lock, as the border calls it. Without the lock the thread
/// sanitizer stops it at once.
TEST_P(EachPolicy, ThreadsShareAShardUnderItsLock) {
  CacheShard shard(3000, infcore::cache::make_eviction_policy(GetParam()));
  constexpr int n_threads = 4, n_steps = 3000;
  std::atomic<std::uint64_t> n_found{0}, n_asked{0};
  std::vector<std::thread> threads;
  for (int at = 0; at < n_threads; ++at) {
    threads.emplace_back([&, at] {
      Draw draw(static_cast<std::uint64_t>(at) + 100);
      const std::string tag = "tag " + std::to_string(at);
      for (int step = 0; step < n_steps; ++step) {
        const std::uint64_t key = below(draw, 200);
        const std::lock_guard hold(shard.lock);
        const EntryId id = find(shard, key);
        n_asked.fetch_add(1, std::memory_order_relaxed);
        if (id != no_entry && shard.is_live(id, step)) {
          shard.hit(id);
          n_found.fetch_add(1, std::memory_order_relaxed);
        } else {
          shard.miss();
        }
        const std::uint32_t what = below(draw, 10);
        if (what < 5) {
          NewEntry entry = entry_of(key, 1 + below(draw, 100), below(draw, 9));
          const std::string_view names[] = {tag};
          if (what == 0) entry.tags = names;
          if (what == 1) entry.expires_ns = step + 50;
          EntryId placed = no_entry;
          put(shard, entry, step, placed);
        } else if (what == 5 && id != no_entry && shard.in_use(id)) {
          shard.pin(id);
        } else if (what == 6 && id != no_entry) {
          shard.unpin(id);
        } else if (what == 7 && step % 16 == 0) {
          shard.invalidate(tag);
        } else if (what == 8 && id != no_entry && step % 8 == 0) {
          shard.remove(id);
          while (shard.take_gone() != no_entry) {
          }
        }
        EXPECT_LE(shard.counters().bytes_used, 3000u);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto counters = shard.counters();
  EXPECT_EQ(counters.hits, n_found.load());
  EXPECT_EQ(counters.hits + counters.misses, n_asked.load());
}

TEST(CacheShard, TheDeadAreRemovedInPassing) {
  CacheShard shard(1'000'000, infcore::cache::make_eviction_policy("lru"));
  EntryId id = no_entry;
  for (std::uint64_t key = 0; key < 100; ++key) {
    NewEntry entry = entry_of(key, 10, 1.0);
    entry.expires_ns = 50;
    put(shard, entry, 0, id);
  }
  EXPECT_EQ(shard.counters().n_entries, 100u);
  for (std::uint64_t key = 1000; key < 1060; ++key) put(shard, entry_of(key, 10, 1.0), 50, id);
  EXPECT_EQ(shard.counters().expired, 100u);
  EXPECT_EQ(shard.counters().n_entries, 60u);
}

TEST(CacheShard, ReplacingKeepsPinsAndAbandonsTags) {
  CacheShard shard(1000, infcore::cache::make_eviction_policy("gdsf"));
  const std::string_view red[] = {"red"}, blue[] = {"blue"};
  EntryId id = no_entry;
  NewEntry entry = entry_of(1, 10, 1.0);
  entry.tags = red;
  ASSERT_EQ(put(shard, entry, 0, id), Outcome::stored);
  shard.pin(id);
  entry.tags = blue;
  ASSERT_EQ(put(shard, entry, 0, id), Outcome::stored);
  EXPECT_EQ(shard.invalidate("red"), 0u);
  EXPECT_TRUE(shard.is_live(id, 0));
  EXPECT_EQ(shard.tags(id), std::vector<std::string_view>{"blue"});
  EXPECT_EQ(shard.invalidate("blue"), 1u);
  EXPECT_FALSE(shard.is_live(id, 0));
  EXPECT_FALSE(shard.met(id, 0));  // its pin outlives it
  EXPECT_TRUE(shard.unpin(id));
  EXPECT_FALSE(shard.unpin(id));
  EXPECT_TRUE(shard.met(id, 0));
  EXPECT_EQ(shard.take_gone(), id);
}

}  // namespace
