// Ring, chain, sleeper and gate under real threads (run under the thread sanitizer too), lane and queue by themselves.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <infcore/base/errors.hpp>
#include <infcore/queue/done_chain.hpp>
#include <infcore/queue/mpmc_ring.hpp>
#include <infcore/queue/sleeper.hpp>
#include <infcore/queue/tiered_lane.hpp>
#include <infcore/queue/tiered_queue.hpp>
#include <infcore/queue/wait_gate.hpp>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <tuple>
#include <vector>

namespace infcore::queue {
namespace {

using base::never_ns;
using base::TimeNs;

constexpr std::uint64_t n_each = 20'000;

TEST(MpmcRing, RoundsUpAndTellsFullAndEmpty) {
  MpmcRing<int> ring(3);
  EXPECT_EQ(ring.capacity(), 4u);
  EXPECT_EQ(MpmcRing<int>(0).capacity(), 2u);
  EXPECT_EQ(MpmcRing<int>(1).capacity(), 2u);
  EXPECT_TRUE(ring.empty());
  for (int lap = 0; lap < 3; ++lap) {
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(ring.try_push(i));
    EXPECT_FALSE(ring.try_push(9));
    EXPECT_FALSE(ring.empty());
    for (int i = 0; i < 4; ++i) {
      int item = -1;
      EXPECT_TRUE(ring.try_pop(item));
      EXPECT_EQ(item, i);
    }
    int item = -1;
    EXPECT_FALSE(ring.try_pop(item));
    EXPECT_TRUE(ring.empty());
  }
}

TEST(MpmcRing, BulkTakesWhatFitsInOrder) {
  MpmcRing<int> ring(8);
  const std::array<int, 12> in{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  std::array<int, 12> out{};
  EXPECT_EQ(ring.try_push_bulk({}), 0u);
  EXPECT_EQ(ring.try_pop_bulk(out), 0u);
  EXPECT_EQ(ring.try_push_bulk(std::span(in).first(5)), 5u);
  EXPECT_EQ(ring.try_pop_bulk(std::span(out).first(3)), 3u);
  EXPECT_EQ(ring.try_push_bulk(in), 6u);  // wraps
  EXPECT_EQ(ring.try_push_bulk(in), 0u);
  EXPECT_EQ(ring.try_pop_bulk(out), 8u);
  EXPECT_EQ((std::vector<int>(out.begin(), out.begin() + 8)), (std::vector<int>{3, 4, 0, 1, 2, 3, 4, 5}));
}

/// Two producers and two consumers; item = producer << 32 | number. A consumer sees each producer's numbers rise.
void exchange_through_ring(std::size_t capacity, bool push_bulk, bool pop_bulk) {
  constexpr std::size_t n_bulk = 7;
  MpmcRing<std::uint64_t> ring(capacity);
  std::atomic<std::uint64_t> n_left{2 * n_each};
  std::array<std::array<std::uint64_t, 2>, 2> sums{};
  std::atomic<bool> in_order{true};
  std::vector<std::thread> threads;
  for (std::uint64_t p = 0; p < 2; ++p) {
    threads.emplace_back([&, p] {
      for (std::uint64_t i = 0; i < n_each;) {
        std::array<std::uint64_t, n_bulk> items{};
        const std::size_t n = push_bulk ? std::min<std::uint64_t>(n_bulk, n_each - i) : 1;
        for (std::size_t k = 0; k < n; ++k) items[k] = p << 32 | (i + k + 1);
        const std::size_t taken = push_bulk ? ring.try_push_bulk(std::span(items).first(n)) : ring.try_push(items[0]);
        if (taken == 0) std::this_thread::yield();
        i += taken;
      }
    });
    threads.emplace_back([&, p] {
      std::array<std::uint64_t, 2> last{};
      while (n_left.load(std::memory_order_relaxed) > 0) {
        std::array<std::uint64_t, n_bulk> items{};
        const std::size_t n = pop_bulk ? ring.try_pop_bulk(items) : ring.try_pop(items[0]);
        if (n == 0) std::this_thread::yield();
        for (std::size_t k = 0; k < n; ++k) {
          const std::uint64_t producer = items[k] >> 32;
          const std::uint64_t number = items[k] & 0xFFFF'FFFFu;
          if (number <= last[producer]) in_order = false;
          last[producer] = number;
          sums[p][producer] += number;
        }
        n_left.fetch_sub(n, std::memory_order_relaxed);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(in_order);
  for (std::size_t producer = 0; producer < 2; ++producer) {
    EXPECT_EQ(sums[0][producer] + sums[1][producer], n_each * (n_each + 1) / 2);
  }
}

TEST(MpmcRing, ThreadsOneByOne) { exchange_through_ring(4, false, false); }
TEST(MpmcRing, ThreadsBulkToBulk) { exchange_through_ring(16, true, true); }
TEST(MpmcRing, ThreadsBulkToSingle) { exchange_through_ring(8, true, false); }
TEST(MpmcRing, ThreadsSingleToBulk) { exchange_through_ring(8, false, true); }

struct Node {
  Node* next{};
  std::uint64_t value{};
};

TEST(DoneChain, GivesPushOrder) {
  DoneChain<Node> chain;
  std::array<Node, 5> nodes{};
  for (std::uint64_t i = 0; i < 5; ++i) nodes[i].value = i;
  EXPECT_TRUE(chain.empty());
  EXPECT_EQ(chain.take_all(), nullptr);
  nodes[0].next = &nodes[1];
  nodes[1].next = &nodes[2];
  EXPECT_TRUE(chain.push_chain(&nodes[0], &nodes[2]));
  EXPECT_FALSE(chain.push_chain(&nodes[3], &nodes[3]));
  EXPECT_FALSE(chain.push_chain(&nodes[4], &nodes[4]));
  EXPECT_FALSE(chain.empty());
  std::uint64_t expected = 0;
  for (Node* node = chain.take_all(); node != nullptr; node = node->next) EXPECT_EQ(node->value, expected++);
  EXPECT_EQ(expected, 5u);
  EXPECT_TRUE(chain.push_chain(&nodes[4], &nodes[4]));
}

/// Pushers with chains of three, woken up for by a sleeper only where push_chain asks for it.
TEST(DoneChain, ThreadsWithASleeper) {
  constexpr std::size_t n_pushers = 3;
  constexpr std::size_t n_nodes = 3 * 4'000;
  DoneChain<Node> chain;
  Sleeper<> sleeper;
  std::vector<std::vector<Node>> nodes(n_pushers, std::vector<Node>(n_nodes));
  std::vector<std::thread> threads;
  for (std::size_t p = 0; p < n_pushers; ++p) {
    threads.emplace_back([&, p] {
      for (std::size_t i = 0; i < n_nodes; i += 3) {
        for (std::size_t k = 0; k < 3; ++k)
          nodes[p][i + k] = {&nodes[p][std::min(i + k + 1, n_nodes - 1)], p << 32 | (i + k)};
        if (chain.push_chain(&nodes[p][i], &nodes[p][i + 2])) sleeper.notify();
        if (i % 300 == 0) std::this_thread::yield();
      }
    });
  }
  std::array<std::uint64_t, n_pushers> expected{};
  for (std::size_t n = 0; n < n_pushers * n_nodes;) {
    ASSERT_TRUE(sleeper.wait([&] { return !chain.empty(); }, never_ns));
    for (Node* node = chain.take_all(); node != nullptr; node = node->next, ++n) {
      ASSERT_EQ(node->value & 0xFFFF'FFFFu, expected[node->value >> 32]++);
    }
  }
  for (auto& thread : threads) thread.join();
}

/// The engine's shape: ring in, many notifiers, one owner that sleeps whenever it finds nothing. A lost wake-up hangs.
TEST(Sleeper, ThreadsOverARing) {
  MpmcRing<std::uint64_t> ring(64);
  Sleeper<> sleeper;
  std::vector<std::thread> threads;
  for (int p = 0; p < 3; ++p) {
    threads.emplace_back([&] {
      for (std::uint64_t i = 1; i <= n_each / 4; ++i) {
        while (!ring.try_push(i)) std::this_thread::yield();
        sleeper.notify();
        if (i % 16 == 0) std::this_thread::yield();
      }
    });
  }
  std::uint64_t sum = 0;
  for (std::uint64_t n = 0; n < 3 * (n_each / 4);) {
    ASSERT_TRUE(sleeper.wait([&] { return !ring.empty(); }, never_ns));
    for (std::uint64_t item = 0; ring.try_pop(item); ++n) sum += item;
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(sum, 3 * (n_each / 4) * (n_each / 4 + 1) / 2);
}

TEST(Sleeper, TimesOutAndReturnsAtOnceWhenReady) {
  Sleeper<> sleeper;
  EXPECT_TRUE(sleeper.wait([] { return true; }, 0));
  EXPECT_FALSE(sleeper.wait([] { return false; }, 0));
  const TimeNs until_ns = base::monotonic_ns() + 2'000'000;
  EXPECT_FALSE(sleeper.wait([] { return false; }, until_ns));
  EXPECT_GE(base::monotonic_ns(), until_ns);
}

TEST(WaitGate, PassesEveryPermit) {
  SpinLock<> lock;
  WaitGate<> gate;
  int n_permits = 0;
  std::vector<std::thread> takers;
  for (int t = 0; t < 3; ++t) {
    takers.emplace_back([&] {
      for (int i = 0; i < 1'000; ++i) {
        for (;;) {
          std::unique_lock guard(lock);
          if (n_permits > 0) {
            --n_permits;
            break;
          }
          const std::uint32_t token = gate.enter();
          guard.unlock();
          EXPECT_NE(gate.wait(token, never_ns), WaitOutcome::timed_out);
          gate.leave();
        }
      }
    });
  }
  for (int i = 0; i < 3'000; ++i) {
    lock.lock();
    ++n_permits;
    const bool wake = gate.open();
    lock.unlock();
    if (wake) gate.wake(1);
  }
  for (auto& taker : takers) taker.join();
  EXPECT_EQ(n_permits, 0);
}

TEST(TieredLane, ConfigIsChecked) {
  QueueSlots slots(1);
  EXPECT_THROW(TieredLane(slots, 0), InvalidArgument);
  EXPECT_THROW(TieredLane(slots, 65), InvalidArgument);
  EXPECT_THROW(TieredLane(slots, 1, -1), InvalidArgument);
}

/// Many lanes over one arena against sorted maps, with slots that come back with their old arrival and number.
TEST(TieredLane, AgreesWithSortedMapsOverASharedArena) {
  constexpr std::uint32_t n_slots = 300;
  constexpr std::uint32_t n_lanes = 5;
  constexpr TimeNs ageing_ns = 60;
  using Rank = std::tuple<std::uint16_t, TimeNs, std::uint64_t>;
  std::mt19937_64 random(7);
  QueueSlots slots(n_slots);
  std::vector<TieredLane> lanes;
  for (std::uint32_t i = 0; i < n_lanes; ++i) lanes.emplace_back(slots, 4, i % 2 == 0 ? never_ns : ageing_ns);
  std::vector<std::map<Rank, std::uint32_t>> by_rank(n_lanes);
  std::vector<std::map<std::pair<TimeNs, std::uint64_t>, std::uint32_t>> by_age(n_lanes);
  std::vector<std::uint32_t> free_slots;
  std::vector<std::uint32_t> lane_of(n_slots);
  for (std::uint32_t i = 0; i < n_slots; ++i) free_slots.push_back(i);
  std::uint64_t seq = 0;
  TimeNs now_ns = -1'000;
  const auto forget = [&](std::uint32_t slot) {
    const QueueSlot& item = slots[slot];
    by_rank[lane_of[slot]].erase({item.tier, item.deadline_ns, item.seq});
    by_age[lane_of[slot]].erase({item.arrival_ns, item.seq});
  };
  const auto push = [&](std::uint32_t slot, std::uint32_t lane) {
    const QueueSlot& item = slots[slot];
    lane_of[slot] = lane;
    ASSERT_TRUE(lanes[lane].push(slot));
    by_rank[lane].emplace(Rank{item.tier, item.deadline_ns, item.seq}, slot);
    by_age[lane].emplace(std::pair{item.arrival_ns, item.seq}, slot);
  };
  for (int step = 0; step < 30'000; ++step) {
    now_ns += static_cast<TimeNs>(random() % 3);
    const auto lane = static_cast<std::uint32_t>(random() % n_lanes);
    if (random() % 2 == 0 && !free_slots.empty()) {
      const std::uint32_t slot = free_slots.back();
      free_slots.pop_back();
      slots[slot].arrival_ns = now_ns;
      slots[slot].seq = seq++;
      slots[slot].tier = static_cast<std::uint16_t>(random() % 4);
      slots[slot].tenant = 0;
      slots[slot].deadline_ns = random() % 3 == 0 ? never_ns : now_ns + static_cast<TimeNs>(random() % 50);
      push(slot, lane);
    } else if (!by_rank[lane].empty()) {
      std::uint32_t slot = lanes[lane].front(now_ns);
      const auto oldest = by_age[lane].begin();
      const bool aged = lane % 2 == 1 && now_ns - oldest->first.first >= ageing_ns;
      ASSERT_EQ(slot, aged ? oldest->second : by_rank[lane].begin()->second);
      if (random() % 3 == 0) {
        slot = std::next(by_age[lane].begin(), static_cast<long>(random() % by_age[lane].size()))->second;
        lanes[lane].remove(slot);
      } else {
        ASSERT_EQ(lanes[lane].pop(now_ns), slot);
      }
      forget(slot);
      if (random() % 4 == 0) {
        push(slot, static_cast<std::uint32_t>(random() % n_lanes));  // a retry, with its old arrival and number
      } else {
        free_slots.push_back(slot);
      }
    }
    ASSERT_EQ(lanes[lane].size(), by_rank[lane].size());
    TimeNs next_ns = never_ns;
    for (const auto& [rank, slot] : by_rank[lane]) next_ns = std::min(next_ns, std::get<1>(rank));
    ASSERT_EQ(lanes[lane].next_deadline_ns(), next_ns);
    ASSERT_EQ(lanes[lane].oldest_arrival_ns(), by_age[lane].empty() ? never_ns : by_age[lane].begin()->first.first);
  }
}

TEST(TieredLane, TimesAtTheEndsOfTheirRange) {
  QueueSlots slots(2);
  TieredLane lane(slots, 1, never_ns - 1);
  slots[0] = {.deadline_ns = never_ns, .arrival_ns = std::numeric_limits<TimeNs>::min(), .seq = 0, .tier = 0};
  slots[1] = {.deadline_ns = std::numeric_limits<TimeNs>::min(), .arrival_ns = never_ns, .seq = 1, .tier = 0};
  ASSERT_TRUE(lane.push(0));
  ASSERT_TRUE(lane.push(1));
  EXPECT_EQ(lane.front(std::numeric_limits<TimeNs>::min()), 1u);
  EXPECT_EQ(lane.pop(never_ns), 0u);
  EXPECT_EQ(lane.pop(std::numeric_limits<TimeNs>::min()), 1u);
  EXPECT_EQ(lane.pop(0), no_slot);
}

TEST(TieredQueue, ConfigIsChecked) {
  EXPECT_THROW(TieredQueue({.capacity = 0}), InvalidArgument);
  EXPECT_THROW(TieredQueue({.capacity = no_slot}), InvalidArgument);
  EXPECT_THROW(TieredQueue({.capacity = 1, .n_tiers = 2, .tier_capacities = {1}}), InvalidArgument);
  EXPECT_THROW(TieredQueue({.capacity = 1, .n_tiers = 1, .tier_capacities = {0}}), InvalidArgument);
}

TEST(TieredQueue, TicketsOutliveTheirSlot) {
  TieredQueue queue({.capacity = 1});
  std::vector<std::uint64_t> tickets;
  for (int i = 0; i < 5; ++i) {
    const Placed placed = queue.put(0, never_ns, 0, {});
    ASSERT_EQ(placed.slot, 0u);
    tickets.push_back(queue.ticket(0));
    EXPECT_EQ(queue.put(0, never_ns, 0, {}).slot, Placed::full);
    EXPECT_EQ(queue.pop(0), 0u);
  }
  ASSERT_EQ(queue.put(0, 10, 0, {}).slot, 0u);
  for (const std::uint64_t ticket : tickets) EXPECT_EQ(queue.cancel(ticket), no_slot);
  EXPECT_EQ(queue.cancel(std::uint64_t{5} << 32 | 1), no_slot);
  EXPECT_EQ(queue.put(0, never_ns, 10, {}).slot, Placed::full_of_expired);
  EXPECT_EQ(queue.take_expired(9), no_slot);
  EXPECT_EQ(queue.take_expired(10), 0u);
  EXPECT_EQ(queue.size(), 0u);
}

}  // namespace
}  // namespace infcore::queue
