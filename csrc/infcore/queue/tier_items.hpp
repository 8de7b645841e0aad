#pragma once
#include <cstdint>
#include <infcore/queue/queue_slots.hpp>
#include <infcore/queue/slot_heap.hpp>
#include <infcore/queue/slot_list.hpp>
#include <vector>

namespace infcore::queue {

/// By arrival, for items that are equal in everything else; and where a slot stands in its deadline heap.
struct BySeq {
  QueueSlots* slots;
  std::uint32_t& position(std::uint32_t slot) const noexcept { return slots->position(slot); }
  bool first(std::uint32_t a, std::uint32_t b) const noexcept { return (*slots)[a].seq < (*slots)[b].seq; }
  bool operator()(std::uint32_t a, std::uint32_t b) const noexcept { return first(a, b); }
};

/// What one tenant has in one tier: by deadline, those without one after all others; then by seq. Single-threaded.
/// Cost: O(log n), O(1) for items without a deadline, which never enter a heap.
struct TierItems {
  SlotHeap deadlines{};
  SlotList<&QueueSlot::by_seq> no_deadline{};

  [[nodiscard]] bool empty() const noexcept { return deadlines.empty() && no_deadline.front() == no_slot; }
  [[nodiscard]] std::uint32_t front() const noexcept {
    return deadlines.empty() ? no_deadline.front() : deadlines.top();
  }
  /// Whose deadline comes first; no_slot if none has one.
  [[nodiscard]] std::uint32_t next_to_expire() const noexcept { return deadlines.empty() ? no_slot : deadlines.top(); }

  /// Hands them out in that order, without taking them, until `visit(slot)` returns false.
  template <class Visit>
  void in_order(QueueSlots& slots, std::vector<std::uint32_t>& frontier, Visit visit) const noexcept {
    bool goes_on = true;
    deadlines.in_order(BySeq{&slots}, frontier, [&](std::uint32_t slot) { return goes_on = visit(slot); });
    for (std::uint32_t slot = no_deadline.front(); slot != no_slot && goes_on; slot = no_deadline.after(slots, slot)) {
      goes_on = visit(slot);
    }
  }

  /// Precondition: an item without a deadline, or deadlines.make_room() was true.
  void push(QueueSlots& slots, std::uint32_t slot) noexcept {
    const base::TimeNs deadline_ns = slots[slot].deadline_ns;
    if (deadline_ns == base::never_ns) {
      no_deadline.insert(slots, slot, BySeq{&slots});
    } else {
      deadlines.push(BySeq{&slots}, deadline_ns, slot);
    }
  }

  void remove(QueueSlots& slots, std::uint32_t slot) noexcept {
    if (slots[slot].deadline_ns == base::never_ns) {
      no_deadline.remove(slots, slot);
    } else {
      deadlines.remove(BySeq{&slots}, slot);
    }
  }
};

}  // namespace infcore::queue
