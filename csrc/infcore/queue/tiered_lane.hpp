#pragma once
#include <bit>
#include <cstdint>
#include <infcore/base/clock.hpp>
#include <infcore/base/errors.hpp>
#include <infcore/queue/order_scratch.hpp>
#include <infcore/queue/queue_slots.hpp>
#include <infcore/queue/slot_list.hpp>
#include <infcore/queue/tenant_flows.hpp>
#include <infcore/queue/tier_items.hpp>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace infcore::queue {

/// Deadline queue of one owner over slots that it lends. Decides order only: it is handed the time, and forgets nothing
/// by itself (an expired item stays until removed).
///
/// Order      an item that has waited >= ageing_ns goes before everything younger, oldest first; then by tier (0
///            first); then by tenant, see TenantFlows; then by deadline, where none comes after all; then by seq.
/// Threads    one at a time.
/// Cost       push, pop, serve, remove O(log n), O(1) without a deadline; front O(1); next_deadline_ns O(1) per tier
///            that holds deadlines. An idle lane takes 48 bytes a tier and no allocation of its own beyond that.
/// Nothing is counted in a tier as long as all that wait there are one tenant's.
class TieredLane {
 public:
  static constexpr std::uint32_t n_tiers_max = 64;  // one mask word says which tiers hold something

  TieredLane(QueueSlots& slots, std::uint32_t n_tiers, base::TimeNs ageing_ns = base::never_ns)
      : slots_(&slots), ageing_ns_(ageing_ns) {
    if (n_tiers < 1 || n_tiers > n_tiers_max) throw InvalidArgument("n_tiers", std::to_string(n_tiers), "1 to 64");
    if (ageing_ns < 0) throw InvalidArgument("ageing_ns", std::to_string(ageing_ns), ">= 0, or never_ns");
    tiers_.resize(n_tiers);
  }
  TieredLane(const TieredLane&) = delete;
  TieredLane& operator=(const TieredLane&) = delete;
  TieredLane(TieredLane&&) noexcept = default;
  TieredLane& operator=(TieredLane&&) noexcept = default;

  [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
  [[nodiscard]] std::uint32_t n_tiers() const noexcept { return static_cast<std::uint32_t>(tiers_.size()); }

  /// Queues a slot whose deadline_ns, arrival_ns, seq, tier (< n_tiers) and tenant are set and which is in no lane.
  /// False: out of memory, nothing changed.
  [[nodiscard]] bool push(std::uint32_t slot) noexcept {
    const QueueSlot& item = (*slots_)[slot];
    if (!make_room({.tier = item.tier, .tenant = item.tenant, .has_deadline = item.deadline_ns != base::never_ns})) {
      return false;
    }
    push_into_room(slot);
    return true;
  }

  struct Kind {
    std::uint32_t tier;
    std::uint32_t tenant;
    bool has_deadline;
  };

  /// Whether one more item of that kind has its memory; always so without a deadline and for one tenant.
  [[nodiscard]] bool make_room(const Kind& kind) noexcept {
    Tier& tier = tiers_[kind.tier];
    if (!tier.is_several && (tier.tenant == kind.tenant || tier.items.empty())) {
      return !kind.has_deadline || tier.items.deadlines.make_room();
    }
    return make_room_for_several(tier, kind);
  }

  /// push() for who has asked make_room() first.
  void push_into_room(std::uint32_t slot) noexcept {
    QueueSlot& item = (*slots_)[slot];
    Tier& tier = tiers_[item.tier];
    const std::uint64_t bit = std::uint64_t{1} << item.tier;
    if (!tier.is_several) {
      tier.tenant = item.tenant;
      item.flow = tier.flow;
      tier.items.push(*slots_, slot);
    } else {
      tier.flows->push(*slots_, slot);
    }
    if (item.deadline_ns != base::never_ns) with_deadline_ |= bit;
    with_items_ |= bit;
    by_arrival_.insert(*slots_, slot, ByArrival{slots_});
    ++size_;
  }

  /// What pop would give, or no_slot.
  [[nodiscard]] std::uint32_t front(base::TimeNs now_ns) const noexcept {
    if (with_items_ == 0) return no_slot;
    if (ageing_ns_ != base::never_ns) {
      const std::uint32_t oldest = by_arrival_.front();
      if (waited_ns((*slots_)[oldest].arrival_ns, now_ns) >= ageing_ns_) return oldest;
    }
    const Tier& tier = tiers_[std::countr_zero(with_items_)];
    return tier.is_several ? tier.flows->front() : tier.items.front();
  }

  /// Hands out the first items in the order of service, without taking them, until `visit(slot)` returns false, at most
  /// OrderScratch::n_items_max of a tier. Where several tenants wait in a tier: the first of each, then the second of
  /// each, as if all were of the same work. O(log visited) each, aged ones twice.
  template <class Visit>
  void in_order(base::TimeNs now_ns, OrderScratch& scratch, Visit visit) const noexcept {
    const auto aged = [&](std::uint32_t slot) {
      return ageing_ns_ != base::never_ns && waited_ns((*slots_)[slot].arrival_ns, now_ns) >= ageing_ns_;
    };
    for (std::uint32_t slot = by_arrival_.front(); slot != no_slot && aged(slot);
         slot = by_arrival_.after(*slots_, slot)) {
      if (!visit(slot)) return;
    }
    bool goes_on = true;
    const auto visit_younger = [&](std::uint32_t slot) { return aged(slot) || (goes_on = visit(slot)); };
    for (std::uint64_t left = with_items_; left != 0 && goes_on; left &= left - 1) {
      const Tier& tier = tiers_[std::countr_zero(left)];
      if (tier.is_several) {
        tier.flows->in_order(*slots_, scratch, aged, visit_younger);
      } else {
        tier.items.in_order(*slots_, scratch.frontier, visit_younger);
      }
    }
  }

  /// Takes the next item out, see serve(); no_slot if there is none.
  [[nodiscard]] std::uint32_t pop(base::TimeNs now_ns) noexcept {
    const std::uint32_t slot = front(now_ns);
    if (slot != no_slot) serve(slot, TenantFlows::units_per_work);
    return slot;
  }

  /// Takes any item out unserved. Precondition: `slot` is in this lane and its fields are as they were at push.
  void remove(std::uint32_t slot) noexcept { serve(slot, 0); }

  /// Takes any item out; its tenant got so much of its tier's service with it, see TenantFlows::units_of. Precondition:
  /// as for remove.
  void serve(std::uint32_t slot, std::int64_t units) noexcept {
    const QueueSlot& item = (*slots_)[slot];
    Tier& tier = tiers_[item.tier];
    const std::uint64_t bit = std::uint64_t{1} << item.tier;
    if (!tier.is_several) {
      tier.items.remove(*slots_, slot);
      if (tier.items.deadlines.empty()) {
        with_deadline_ &= ~bit;
        if (tier.items.no_deadline.front() == no_slot) with_items_ &= ~bit;
      }
    } else {
      take_of_several(tier, slot, units);
      if (tier.next_to_expire() == no_slot) with_deadline_ &= ~bit;
      if (tier.empty()) with_items_ &= ~bit;
    }
    by_arrival_.remove(*slots_, slot);
    --size_;
  }

  /// The earliest deadline of all tiers; never_ns if no item has one.
  [[nodiscard]] base::TimeNs next_deadline_ns() const noexcept {
    const std::uint32_t slot = next_to_expire();
    return slot == no_slot ? base::never_ns : (*slots_)[slot].deadline_ns;
  }

  /// The item with the earliest deadline of all tiers, lowest tier on a tie; no_slot if no item has one.
  [[nodiscard]] std::uint32_t next_to_expire() const noexcept {
    std::uint32_t next = no_slot;
    base::TimeNs next_ns = base::never_ns;
    for (std::uint64_t left = with_deadline_; left != 0; left &= left - 1) {
      const std::uint32_t slot = tiers_[std::countr_zero(left)].next_to_expire();
      const base::TimeNs deadline_ns = (*slots_)[slot].deadline_ns;
      if (deadline_ns >= next_ns) continue;
      next_ns = deadline_ns;
      next = slot;
    }
    return next;
  }

  [[nodiscard]] bool has_deadlines() const noexcept { return with_deadline_ != 0; }

  /// The item with the earliest arrival_ns, lowest seq on a tie; no_slot if empty.
  [[nodiscard]] std::uint32_t oldest() const noexcept { return by_arrival_.front(); }

  /// Its arrival; never_ns if empty.
  [[nodiscard]] base::TimeNs oldest_arrival_ns() const noexcept {
    return oldest() == no_slot ? base::never_ns : (*slots_)[oldest()].arrival_ns;
  }

 private:
  struct ByArrival {
    QueueSlots* slots;
    bool operator()(std::uint32_t a, std::uint32_t b) const noexcept {
      const QueueSlot& x = (*slots)[a];
      const QueueSlot& y = (*slots)[b];
      return x.arrival_ns != y.arrival_ns ? x.arrival_ns < y.arrival_ns : x.seq < y.seq;
    }
  };

  struct Tier {
    TierItems items{};                     ///< all of them, unless is_several
    std::unique_ptr<TenantFlows> flows{};  ///< made for the first second tenant
    std::uint32_t tenant{};                ///< whose `items` are
    std::uint16_t flow{};                  ///< what stands in their slots
    bool is_several{};                     ///< `flows` has them

    [[nodiscard]] bool empty() const noexcept { return is_several ? flows->empty() : items.empty(); }
    [[nodiscard]] std::uint32_t next_to_expire() const noexcept {
      return is_several ? flows->next_to_expire() : items.next_to_expire();
    }
  };

  // tiered_lane.cpp
  [[nodiscard]] bool make_room_for_several(Tier&, const Kind&) noexcept;
  void take_of_several(Tier&, std::uint32_t slot, std::int64_t units) noexcept;

  /// now - arrival, at most never_ns: a driver's clock may start anywhere in int64.
  static base::TimeNs waited_ns(base::TimeNs arrival_ns, base::TimeNs now_ns) noexcept {
    if (arrival_ns < 0 && now_ns > base::never_ns + arrival_ns) return base::never_ns;
    if (arrival_ns > 0 && now_ns < std::numeric_limits<base::TimeNs>::min() + arrival_ns) return 0;
    return now_ns - arrival_ns;
  }

  QueueSlots* slots_;
  base::TimeNs ageing_ns_;
  std::vector<Tier> tiers_;
  std::uint64_t with_items_{};
  std::uint64_t with_deadline_{};
  SlotList<&QueueSlot::by_arrival> by_arrival_;
  std::uint32_t size_{};
};

}  // namespace infcore::queue
