// Fairness between tenants, against counters that are never forgotten: TenantFlows under TieredLane and TieredQueue.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <infcore/queue/tenant_flows.hpp>
#include <infcore/queue/tenant_map.hpp>
#include <infcore/queue/tiered_lane.hpp>
#include <infcore/queue/tiered_queue.hpp>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

namespace infcore::queue {
namespace {

using base::never_ns;
using base::TimeNs;
__extension__ typedef __int128 Units;

/// One tier's counters as the paper has them: one for each tenant there ever was.
struct Counters {
  std::map<std::uint32_t, Units> served;
  std::map<std::uint32_t, int> n_waiting;
  Units last_left = 0;

  Units floor() {
    Units least = -1;
    for (const auto& [tenant, n] : n_waiting) {
      if (n > 0 && (least < 0 || served[tenant] < least)) least = served[tenant];
    }
    return least < 0 ? last_left : least;
  }
  void enter(std::uint32_t tenant) {
    if (n_waiting[tenant] == 0) served[tenant] = std::max(served[tenant], floor());
    ++n_waiting[tenant];
  }
  void leave(std::uint32_t tenant, std::int64_t units) {
    served[tenant] = std::min(served[tenant] + units, floor() + TenantFlows::ahead_units_max);
    if (--n_waiting[tenant] == 0) last_left = served[tenant];
  }
};

void agrees(std::uint64_t seed, std::uint32_t n_tenants, std::int64_t units_max, std::uint32_t depth) {
  constexpr std::uint32_t n_tiers = 2;
  std::mt19937_64 random(seed);
  QueueSlots slots(depth);
  TieredLane lane(slots, n_tiers);
  std::vector<Counters> counters(n_tiers);
  std::vector<std::uint32_t> inside, free_slots;
  for (std::uint32_t i = 0; i < depth; ++i) free_slots.push_back(i);
  std::uint64_t seq = 0;
  bool filling = true;
  for (int step = 0; step < 8'000; ++step) {
    if (random() % 64 == 0) filling = !filling;
    if (!free_slots.empty() && (inside.empty() || random() % 8 < (filling ? 5u : 3u))) {
      const std::uint32_t slot = free_slots.back();
      free_slots.pop_back();
      inside.push_back(slot);
      QueueSlot& item = slots[slot];
      item.arrival_ns = 0;
      item.seq = seq++;
      item.tier = static_cast<std::uint16_t>(random() % n_tiers);
      item.tenant = static_cast<std::uint32_t>(random() % n_tenants) * 0x1'0000u;
      item.deadline_ns = random() % 3 == 0 ? never_ns : static_cast<TimeNs>(random() % 50);
      counters[item.tier].enter(item.tenant);
      ASSERT_TRUE(lane.push(slot));
    } else if (!inside.empty()) {
      const auto rank = [&](std::uint32_t slot) {
        const QueueSlot& item = slots[slot];
        return std::tuple(item.tier, counters[item.tier].served[item.tenant], item.deadline_ns, item.seq);
      };
      auto at = std::min_element(inside.begin(), inside.end(),
                                 [&](std::uint32_t a, std::uint32_t b) { return rank(a) < rank(b); });
      ASSERT_EQ(lane.front(0), *at) << "step " << step;
      std::int64_t units = 1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(units_max));
      if (random() % 4 == 0) {  // taken back, or served out of turn
        at = inside.begin() + static_cast<long>(random() % inside.size());
        if (random() % 2 == 0) units = 0;
      }
      counters[slots[*at].tier].leave(slots[*at].tenant, units);
      lane.serve(*at, units);
      free_slots.push_back(*at);
      inside.erase(at);
    }
    ASSERT_EQ(lane.size(), inside.size());
    TimeNs next_ns = never_ns;
    for (const std::uint32_t slot : inside) next_ns = std::min(next_ns, slots[slot].deadline_ns);
    ASSERT_EQ(lane.next_deadline_ns(), next_ns);
  }
}

TEST(TenantFlows, AgreeWithCountersThatAreNeverForgotten) {
  std::uint64_t seed = 1;
  for (const std::uint32_t n_tenants : {1u, 2u, 3u, 40u}) {
    for (const std::int64_t units_max : {std::int64_t{1}, std::int64_t{5'000}, TenantFlows::item_units_max}) {
      for (const std::uint32_t depth : {2u, 6u, 60u}) agrees(seed++, n_tenants, units_max, depth);
    }
  }
}

QueueSlot item_of(std::uint32_t tenant, std::uint64_t seq, TimeNs deadline_ns = never_ns) {
  return {.deadline_ns = deadline_ns, .arrival_ns = 0, .seq = seq, .tier = 0, .flow = 0, .tenant = tenant};
}

TEST(TenantFlows, SharesDifferByOneItemAtMostWhileBothWait) {
  constexpr std::int64_t large = 50 * TenantFlows::units_per_work, small = TenantFlows::units_per_work;
  QueueSlots slots(4'000);
  TieredLane lane(slots, 1);
  for (std::uint32_t i = 0; i < 4'000; ++i) {  // the flood came first, and with earlier deadlines
    slots[i] = item_of(i < 2'000 ? 1 : 2, i, i < 2'000 ? 10 : never_ns);
    ASSERT_TRUE(lane.push(i));
  }
  std::int64_t served[3]{};
  for (int i = 0; i < 1'500; ++i) {
    const std::uint32_t slot = lane.front(0);
    const std::uint32_t tenant = slots[slot].tenant;
    lane.serve(slot, tenant == 1 ? large : small);
    served[tenant] += tenant == 1 ? large : small;
    ASSERT_LE(std::abs(served[1] - served[2]), large);
  }
}

TEST(TenantFlows, NobodySavesUpByBeingAway) {
  QueueSlots slots(300);
  TieredLane lane(slots, 1);
  std::uint32_t n = 0;
  const auto push = [&](std::uint32_t tenant) {
    slots[n] = item_of(tenant, n);
    ASSERT_TRUE(lane.push(n++));
  };
  const auto serve = [&] {
    const std::uint32_t slot = lane.front(0);
    lane.serve(slot, TenantFlows::units_per_work);
    return slots[slot].tenant;
  };
  for (int i = 0; i < 100; ++i) push(1);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(serve(), 1u);
  for (int i = 0; i < 60; ++i) push(2);  // it was away for fifty: from now on they take turns
  for (int i = 0; i < 50; ++i) EXPECT_NE(serve(), serve());
}

TEST(TenantFlows, NobodyGetsAheadByLeaving) {
  QueueSlots slots(300);
  TieredLane lane(slots, 1);
  for (std::uint32_t i = 0; i < 100; ++i) {
    slots[i] = item_of(1, i);
    ASSERT_TRUE(lane.push(i));
  }
  std::uint32_t n = 100;
  int n_large = 0;
  for (int i = 0; i < 90; ++i) {
    if (lane.size() < 101u - static_cast<std::uint32_t>(i) + static_cast<std::uint32_t>(n_large)) {
      slots[n] = item_of(2, n);  // one large item at a time, gone in between
      ASSERT_TRUE(lane.push(n++));
    }
    const std::uint32_t slot = lane.front(0);
    const bool is_large = slots[slot].tenant == 2;
    n_large += is_large ? 1 : 0;
    lane.serve(slot, (is_large ? 30 : 1) * TenantFlows::units_per_work);
  }
  EXPECT_EQ(n_large, 3);
}

TEST(TenantFlows, MoreTenantsThanThereAreFlowsLoseNothing) {
  constexpr std::uint32_t n = TenantFlows::n_flows_max + 3'000;
  QueueSlots slots(n);
  TieredLane lane(slots, 1);
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t i = 0; i < n; ++i) {
      slots[i] = item_of(i + 1, i);
      ASSERT_TRUE(lane.push(i));
    }
    std::set<std::uint32_t> seen;
    while (lane.size() > 0) {
      const std::uint32_t slot = lane.front(0);
      seen.insert(slot);
      lane.serve(slot, 1 + static_cast<std::int64_t>(slot % 7));
    }
    EXPECT_EQ(seen.size(), n);
  }
}

TEST(TenantFlows, UnitsOfWork) {
  EXPECT_EQ(TenantFlows::units_of(0.0), 1);
  EXPECT_EQ(TenantFlows::units_of(1.0), 1024);
  EXPECT_EQ(TenantFlows::units_of(0.5), 512);
  EXPECT_EQ(TenantFlows::units_of(1e300), TenantFlows::item_units_max);
  EXPECT_EQ(TenantFlows::units_of(std::numeric_limits<double>::infinity()), TenantFlows::item_units_max);
}

TEST(TenantMap, AgreesWithAMap) {
  std::mt19937_64 random(5);
  TenantMap map;
  std::map<std::uint32_t, std::uint32_t> expected;
  EXPECT_EQ(map.find(0), TenantMap::none);
  for (std::uint32_t i = 0; i < 50'000; ++i) {
    const auto tenant = static_cast<std::uint32_t>(random() % 300) << (i % 3 == 0 ? 24 : 0);
    if (const auto it = expected.find(tenant); it == expected.end()) {
      ASSERT_EQ(map.find(tenant), TenantMap::none);
      ASSERT_TRUE(map.make_room());
      map.insert(tenant, i);
      expected.emplace(tenant, i);
    } else {
      ASSERT_EQ(map.find(tenant), it->second);
      map.erase(tenant);
      expected.erase(it);
    }
  }
}

/// The item that has to go may be the last of the newcomer's own tenant.
TEST(TieredQueue, ShedsForTheSameTenant) {
  TieredQueue queue({.capacity = 2, .n_tiers = 1, .tier_capacities = {}, .shed_lowest = true});
  const Placed first = queue.put(0, 50, 0, {.tenant = 1});
  const Placed second = queue.put(0, 60, 0, {.tenant = 2});
  const Placed third = queue.put(0, 40, 0, {.tenant = 2});
  ASSERT_EQ(third.shed, second.slot);
  EXPECT_EQ(queue.pop(0), third.slot);
  EXPECT_EQ(queue.pop(0), first.slot);
  EXPECT_EQ(queue.pop(0), no_slot);
}

TEST(TieredQueue, WorkCountsForTheTenant) {
  TieredQueue queue({.capacity = 8});
  std::vector<std::uint32_t> slots;
  slots.push_back(queue.put(0, never_ns, 0, {.tenant = 1}).slot);
  slots.push_back(queue.put(0, never_ns, 0, {.tenant = 1, .units = TenantFlows::units_of(3.0)}).slot);
  slots.push_back(queue.put(0, never_ns, 0, {.tenant = 1}).slot);
  for (int i = 0; i < 4; ++i) slots.push_back(queue.put(0, never_ns, 0, {.tenant = 2}).slot);
  std::vector<std::uint32_t> order;
  for (std::uint32_t slot = queue.pop(0); slot != no_slot; slot = queue.pop(0)) order.push_back(slot);
  // 1 and 2 in turn; then 1 has got 4, so 2 has its other three first.
  EXPECT_EQ(order, (std::vector{slots[0], slots[3], slots[1], slots[4], slots[5], slots[6], slots[2]}));
}

}  // namespace
}  // namespace infcore::queue
