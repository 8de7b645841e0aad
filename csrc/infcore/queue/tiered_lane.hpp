#pragma once
#include <bit>
#include <cstdint>
#include <infcore/base/clock.hpp>
#include <infcore/base/errors.hpp>
#include <infcore/queue/queue_slots.hpp>
#include <infcore/queue/slot_heap.hpp>
#include <infcore/queue/slot_list.hpp>
#include <limits>
#include <string>
#include <vector>

namespace infcore::queue {

/// Deadline queue of one owner over slots that it lends. Decides order only: it is handed the time, and forgets nothing
/// by itself (an expired item stays until removed).
///
/// Order      an item that has waited >= ageing_ns goes before everything younger, oldest first; then by tier (0
/// first);
///            then by deadline, where none comes after all; then by seq.
/// Threads    one at a time.
/// Cost       push, pop, remove O(log n), O(1) without a deadline; front, next_deadline_ns O(1) (next_deadline_ns:
///            per tier that holds deadlines). An idle lane takes 32 bytes a tier and no allocation of its own beyond
///            that.
/// Items without a deadline are a plain FIFO and never enter a heap.
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

  /// Queues a slot whose deadline_ns, arrival_ns, seq and tier (< n_tiers) are set and which is in no lane. False: out
  /// of memory, nothing changed.
  [[nodiscard]] bool push(std::uint32_t slot) noexcept {
    if (!make_room((*slots_)[slot].tier, (*slots_)[slot].deadline_ns)) return false;
    push_into_room(slot);
    return true;
  }

  /// Whether one more item of that kind has its memory; always so without a deadline. Grows geometrically.
  [[nodiscard]] bool make_room(std::uint32_t tier, base::TimeNs deadline_ns) noexcept {
    return deadline_ns == base::never_ns || tiers_[tier].deadlines.make_room();
  }

  /// push() for who has asked make_room() first.
  void push_into_room(std::uint32_t slot) noexcept {
    const QueueSlot& item = (*slots_)[slot];
    Tier& tier = tiers_[item.tier];
    const std::uint64_t bit = std::uint64_t{1} << item.tier;
    if (item.deadline_ns == base::never_ns) {
      tier.no_deadline.insert(*slots_, slot, BySeq{slots_});
    } else {
      tier.deadlines.push(BySeq{slots_}, item.deadline_ns, slot);
      with_deadline_ |= bit;
    }
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
    return tier.deadlines.empty() ? tier.no_deadline.front() : tier.deadlines.top();
  }

  /// Hands out the items in the order of service, without taking them, until `visit(slot)` returns false. `frontier` is
  /// scratch: three places for each item visited. O(log visited) each, aged ones twice.
  template <class Visit>
  void in_order(base::TimeNs now_ns, std::vector<std::uint32_t>& frontier, Visit visit) const noexcept {
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
      tier.deadlines.in_order(BySeq{slots_}, frontier, visit_younger);
      for (std::uint32_t slot = tier.no_deadline.front(); slot != no_slot && goes_on;
           slot = tier.no_deadline.after(*slots_, slot)) {
        visit_younger(slot);
      }
    }
  }

  /// Takes the next item out; no_slot if there is none.
  [[nodiscard]] std::uint32_t pop(base::TimeNs now_ns) noexcept {
    const std::uint32_t slot = front(now_ns);
    if (slot != no_slot) remove(slot);
    return slot;
  }

  /// Takes any item out. Precondition: `slot` is in this lane and its fields are as they were at push.
  void remove(std::uint32_t slot) noexcept {
    const QueueSlot& item = (*slots_)[slot];
    Tier& tier = tiers_[item.tier];
    const std::uint64_t bit = std::uint64_t{1} << item.tier;
    if (item.deadline_ns == base::never_ns) {
      tier.no_deadline.remove(*slots_, slot);
    } else {
      tier.deadlines.remove(BySeq{slots_}, slot);
    }
    if (tier.deadlines.empty()) {
      with_deadline_ &= ~bit;
      if (tier.no_deadline.front() == no_slot) with_items_ &= ~bit;
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
      const SlotHeap& heap = tiers_[std::countr_zero(left)].deadlines;
      if (heap.top_key() >= next_ns) continue;
      next_ns = heap.top_key();
      next = heap.top();
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
  struct BySeq {
    QueueSlots* slots;
    std::uint32_t& position(std::uint32_t slot) const noexcept { return slots->position(slot); }
    bool first(std::uint32_t a, std::uint32_t b) const noexcept { return (*slots)[a].seq < (*slots)[b].seq; }
    bool operator()(std::uint32_t a, std::uint32_t b) const noexcept { return first(a, b); }
  };

  struct ByArrival {
    QueueSlots* slots;
    bool operator()(std::uint32_t a, std::uint32_t b) const noexcept {
      const QueueSlot& x = (*slots)[a];
      const QueueSlot& y = (*slots)[b];
      return x.arrival_ns != y.arrival_ns ? x.arrival_ns < y.arrival_ns : x.seq < y.seq;
    }
  };

  struct Tier {
    SlotHeap deadlines;
    SlotList<&QueueSlot::by_seq> no_deadline;
  };

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
