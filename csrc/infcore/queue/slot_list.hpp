#pragma once
#include <cstdint>
#include <infcore/queue/queue_slots.hpp>

namespace infcore::queue {

/// Ordered doubly linked list through QueueSlots. Single-threaded. Items come nearly in order, so an insertion looks
/// for its place from both ends at once: O(1) for the newest and for one that comes back as the oldest.
template <SlotLinks QueueSlot::*Links>
class SlotList {
 public:
  [[nodiscard]] std::uint32_t front() const noexcept { return front_; }
  [[nodiscard]] std::uint32_t back() const noexcept { return back_; }
  /// The one behind it; no_slot: none.
  [[nodiscard]] static std::uint32_t after(const QueueSlots& slots, std::uint32_t slot) noexcept {
    return (slots[slot].*Links).after;
  }

  /// `first(a, b)`: whether slot a belongs before slot b.
  template <class First>
  void insert(QueueSlots& slots, std::uint32_t slot, First first) noexcept {
    std::uint32_t before = back_;
    if (before != no_slot && first(slot, before)) {
      std::uint32_t after = front_;
      for (;;) {
        if (first(slot, after)) {
          before = (slots[after].*Links).before;
          break;
        }
        after = (slots[after].*Links).after;
        before = (slots[before].*Links).before;
        if (!first(slot, before)) break;
      }
    }
    link(slots, slot, before);
  }

  void remove(QueueSlots& slots, std::uint32_t slot) noexcept {
    const SlotLinks links = slots[slot].*Links;
    (links.before == no_slot ? front_ : (slots[links.before].*Links).after) = links.after;
    (links.after == no_slot ? back_ : (slots[links.after].*Links).before) = links.before;
  }

 private:
  void link(QueueSlots& slots, std::uint32_t slot, std::uint32_t before) noexcept {
    const std::uint32_t after = before == no_slot ? front_ : (slots[before].*Links).after;
    slots[slot].*Links = {before, after};
    (before == no_slot ? front_ : (slots[before].*Links).after) = slot;
    (after == no_slot ? back_ : (slots[after].*Links).before) = slot;
  }

  std::uint32_t front_{no_slot};
  std::uint32_t back_{no_slot};
};

}  // namespace infcore::queue
