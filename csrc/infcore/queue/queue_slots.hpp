#pragma once
#include <cstddef>
#include <cstdint>
#include <infcore/base/clock.hpp>
#include <memory>

namespace infcore::queue {

/// "No such slot."
inline constexpr std::uint32_t no_slot = 0xFFFF'FFFFu;

/// Neighbours in one of the lists that run through the slots.
struct SlotLinks {
  std::uint32_t before;
  std::uint32_t after;
};

/// One queued item. The owner fills the first three fields, tier and tenant before TieredLane::push; the rest is the
/// lane's.
struct QueueSlot {
  base::TimeNs deadline_ns;  ///< never_ns: none
  base::TimeNs arrival_ns;   ///< for ageing and for how long the oldest has waited
  std::uint64_t seq;         ///< arrival order, unique in a lane: the last tie-break
  SlotLinks by_arrival;      ///< all items of a lane
  SlotLinks by_seq;          ///< the items of one tier without a deadline
  std::uint16_t tier;
  std::uint16_t flow;    ///< of its tenant in its tier
  std::uint32_t tenant;  ///< a number of the owner's
};

/// Arena of slots of fixed capacity, shared by any number of lanes; a slot is in one lane at most. Who owns which slot
/// is the owner's business. The memory is reserved at once and untouched until used.
class QueueSlots {
 public:
  explicit QueueSlots(std::uint32_t capacity)
      : capacity_(capacity),
        slots_(std::make_unique_for_overwrite<QueueSlot[]>(capacity)),
        positions_(std::make_unique_for_overwrite<std::uint32_t[]>(capacity)) {}

  [[nodiscard]] std::uint32_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] QueueSlot& operator[](std::uint32_t slot) noexcept { return slots_[slot]; }
  [[nodiscard]] const QueueSlot& operator[](std::uint32_t slot) const noexcept { return slots_[slot]; }

  /// Where the slot stands in its deadline heap. Apart from the slots: a heap writes these all the time.
  [[nodiscard]] std::uint32_t& position(std::uint32_t slot) noexcept { return positions_[slot]; }

 private:
  std::uint32_t capacity_;
  std::unique_ptr<QueueSlot[]> slots_;
  std::unique_ptr<std::uint32_t[]> positions_;
};

static_assert(sizeof(QueueSlot) == 48, "a slot stays inside one cache line more often than not");

}  // namespace infcore::queue
