#pragma once
#include <algorithm>
#include <cstdint>
#include <infcore/queue/order_scratch.hpp>
#include <infcore/queue/queue_slots.hpp>
#include <infcore/queue/slot_heap.hpp>
#include <infcore/queue/tenant_map.hpp>
#include <infcore/queue/tier_items.hpp>
#include <vector>

namespace infcore::queue {

/// The items of one tier where more than one tenant has some: the tenant that was served the least work comes first, of
/// equals the one whose first item has the earlier deadline, then the lower seq. A tenant that comes back is lifted to
/// the least of those that wait, or to what the last one that left had got: nobody saves up by being away, and nobody
/// gets ahead by leaving. Source: virtual token counter, Sheng et al., Fairness in Serving Large Language Models, OSDI
/// 2024, algorithm 2; ours is that a counter is forgotten as soon as lifting would replace it anyway.
///
/// Threads   one at a time.
/// Promise   while two tenants both wait, what they are served differs by one item's work at most, apart from what was
///           served out of turn (aged items, a batching rule's selection), which counts like any other.
/// Memory    a flow for each tenant that waits or is ahead of all that wait; n_flows_max, then the idle one that is the
///           least ahead is forgotten, and where all wait, further tenants share a flow.
/// Cost      O(log tenants + log items) each; front() and next_to_expire() O(1).
class TenantFlows {
 public:
  static constexpr std::uint32_t n_flows_max = 1u << 14;
  /// Work is counted in whole units of 1/1024: exact on every machine, and of any number of items.
  static constexpr std::int64_t units_per_work = 1024;
  static constexpr std::int64_t item_units_max = std::int64_t{1} << 60;
  /// More than this ahead of the one that was served least counts as this.
  static constexpr std::int64_t ahead_units_max = std::int64_t{1} << 61;

  /// At least one unit, so that work of nothing does not keep others waiting for ever. Precondition: work >= 0.
  [[nodiscard]] static constexpr std::int64_t units_of(double work) noexcept {
    const double units = work * static_cast<double>(units_per_work);
    if (!(units < static_cast<double>(item_units_max))) return item_units_max;
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(units));
  }

  /// Takes over the items of who was alone until now. `flow` stands in their slots; precondition: it was give_up()'s
  /// answer, or 0. False: out of memory, nothing changed.
  [[nodiscard]] bool adopt(std::uint32_t flow, std::uint32_t tenant, TierItems& items, QueueSlots& slots) noexcept;
  /// The reverse, where one tenant is left: its items, its number and the flow that stands in their slots.
  std::uint32_t give_up(std::uint32_t& tenant, TierItems& items) noexcept;
  /// Whether one tenant waits and nobody else is ahead, or neither; so that counting can stop.
  [[nodiscard]] bool is_one() const noexcept { return n_known_ <= 1 && n_known_ == ready_.size(); }

  /// Whether one more item of the tenant has its memory. False: out of memory.
  [[nodiscard]] bool make_room(std::uint32_t tenant, bool has_deadline) noexcept;
  /// Precondition: make_room() was true.
  void push(QueueSlots& slots, std::uint32_t slot) noexcept;
  /// Takes an item out; its tenant has got `units` of service with it, 0 where it was not served.
  void take(QueueSlots& slots, std::uint32_t slot, std::int64_t units) noexcept;

  [[nodiscard]] bool empty() const noexcept { return ready_.empty(); }
  [[nodiscard]] std::uint32_t front() const noexcept {
    return ready_.empty() ? no_slot : flows_[ready_.top()].items.front();
  }
  /// Hands out the first items of each tenant, the least served tenant first, then the second of each, until
  /// `visit(slot)` returns false: at most n_items_max of them, shared out evenly. Those that `passed(slot)` do not
  /// count.
  template <class Passed, class Visit>
  void in_order(QueueSlots& slots, OrderScratch& scratch, Passed passed, Visit visit) const noexcept {
    // By name: a lambda can't capture structured bindings for clang 14.
    auto &frontier = scratch.frontier, &flows = scratch.flows, &items = scratch.items, &ends = scratch.ends;
    flows.clear();
    auto* const read_only = const_cast<std::vector<Flow>*>(&flows_);  // in_order() moves nothing
    ready_.in_order(ByServed{read_only, &slots}, frontier, [&](std::uint32_t flow) {
      flows.push_back(flow);
      return flows.size() < OrderScratch::n_items_max;
    });
    if (flows.empty()) return;
    const std::size_t n_each = (OrderScratch::n_items_max + flows.size() - 1) / flows.size();
    items.clear();
    ends.clear();
    for (const std::uint32_t flow : flows) {
      const std::size_t begin = items.size();
      flows_[flow].items.in_order(slots, frontier, [&](std::uint32_t slot) {
        if (!passed(slot)) items.push_back(slot);
        return items.size() - begin < n_each;
      });
      ends.push_back(static_cast<std::uint32_t>(items.size()));
    }
    for (std::size_t rank = 0; rank < n_each; ++rank) {
      for (std::size_t flow = 0; flow < ends.size(); ++flow) {
        const std::size_t at = (flow == 0 ? 0 : ends[flow - 1]) + rank;
        if (at < ends[flow] && !visit(items[at])) return;
      }
    }
  }

  [[nodiscard]] std::uint32_t next_to_expire() const noexcept {
    return due_.empty() ? no_slot : flows_[due_.top()].items.deadlines.top();
  }

 private:
  struct Flow {
    TierItems items{};
    std::int64_t served{};  ///< units; compared with those of the same tier alone
    std::uint32_t tenant{};
    std::uint32_t at_served{};  ///< its place in ready_ or idle_
    std::uint32_t at_due{};
    bool idle{};
  };
  /// Of those that wait: by what they were served, then as their first items stand.
  struct ByServed {
    std::vector<Flow>* flows;
    const QueueSlots* slots;
    std::uint32_t& position(std::uint32_t flow) const noexcept { return (*flows)[flow].at_served; }
    bool first(std::uint32_t a, std::uint32_t b) const noexcept {
      const QueueSlot& x = (*slots)[(*flows)[a].items.front()];
      const QueueSlot& y = (*slots)[(*flows)[b].items.front()];
      return x.deadline_ns != y.deadline_ns ? x.deadline_ns < y.deadline_ns : x.seq < y.seq;
    }
  };
  struct ByServedIdle {
    std::vector<Flow>* flows;
    std::uint32_t& position(std::uint32_t flow) const noexcept { return (*flows)[flow].at_served; }
    bool first(std::uint32_t a, std::uint32_t b) const noexcept { return a < b; }
  };
  struct ByDeadline {
    std::vector<Flow>* flows;
    const QueueSlots* slots;
    std::uint32_t& position(std::uint32_t flow) const noexcept { return (*flows)[flow].at_due; }
    bool first(std::uint32_t a, std::uint32_t b) const noexcept {
      return (*slots)[(*flows)[a].items.deadlines.top()].seq < (*slots)[(*flows)[b].items.deadlines.top()].seq;
    }
  };

  [[nodiscard]] bool make_room_for_flows(std::size_t n) noexcept;
  [[nodiscard]] std::uint32_t flow_of(std::uint32_t tenant) const noexcept;
  void forget(std::uint32_t flow) noexcept;
  void raise_floor(std::int64_t to) noexcept;
  void deadline_changed(const QueueSlots& slots, std::uint32_t flow, std::uint32_t first_before) noexcept;

  std::vector<Flow> flows_;
  std::vector<std::uint32_t> free_;  ///< flows that are nobody's
  TenantMap by_tenant_;
  SlotHeap ready_, idle_, due_;  ///< flows with items; without, but ahead; with a deadline
  std::int64_t floor_{};         ///< the least of those that wait; where nobody does, what the last one that left had
  std::uint32_t n_known_{};      ///< flows that are somebody's
};

}  // namespace infcore::queue
