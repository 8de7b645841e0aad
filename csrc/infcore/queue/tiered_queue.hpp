#pragma once
#include <cstdint>
#include <infcore/base/clock.hpp>
#include <infcore/queue/queue_slots.hpp>
#include <infcore/queue/slot_heap.hpp>
#include <infcore/queue/tiered_lane.hpp>
#include <memory>
#include <vector>

namespace infcore::queue {

/// What became of a put. Two words, so that it comes back in a register.
struct Placed {
  static constexpr std::uint32_t full = no_slot;
  static constexpr std::uint32_t full_of_expired = no_slot - 1;  ///< full, but take_expired(now_ns) would make room
  static constexpr std::uint32_t out_of_memory = no_slot - 2;
  static constexpr std::uint32_t n_slots_max = no_slot - 2;  // none of the above is a slot

  std::uint32_t slot{full};     ///< where the new item is, or one of the above
  std::uint32_t shed{no_slot};  ///< whose item had to go; may be the same slot, used again
};

struct TieredQueueConfig {
  std::uint32_t capacity{};                    ///< items at once, 1 to Placed::n_slots_max
  std::uint32_t n_tiers{1};                    ///< 1 to TieredLane::n_tiers_max
  std::vector<std::uint32_t> tier_capacities;  ///< one per tier, each >= 1; empty: no bound but `capacity`
  base::TimeNs ageing_ns{base::never_ns};
  bool shed_lowest{};  ///< when full: give up the lowest item for a higher one
};

/// Bounded tiered queue: TieredLane over its own slots, with bounds, tickets, expiry and shedding. Slots are names for
/// the owner's items; a slot that was given back by pop, cancel, take_expired or shed may be used by the next put.
///
/// Threads    one at a time; the owner locks.
/// Full       put reports `full`, or sheds: the lowest is the last tier's, there the latest deadline (none is latest),
///            there the newest. A newcomer that is itself the lowest is not taken. Neither ageing nor what its tenant
///            was served counts here.
/// Expired    an item whose deadline is now or past; the owner calls take_expired before it pops.
/// Cost       as TieredLane; shed_lowest adds a second O(log n) to each put, pop and cancel.
class TieredQueue {
 public:
  explicit TieredQueue(const TieredQueueConfig& config);
  TieredQueue(const TieredQueue&) = delete;  // the lane points to the slots
  TieredQueue& operator=(const TieredQueue&) = delete;

  /// Whose an item is, and what its service counts there. See TenantFlows.
  struct Share {
    std::uint32_t tenant{};
    std::int64_t units{TenantFlows::units_per_work};
  };

  /// Precondition: tier < n_tiers. An item may be put with its deadline past.
  [[nodiscard]] Placed put(std::uint32_t tier, base::TimeNs deadline_ns, base::TimeNs now_ns, Share share) noexcept;

  /// The next item in order; no_slot if there is none.
  [[nodiscard]] std::uint32_t pop(base::TimeNs now_ns) noexcept {
    const std::uint32_t slot = lane_.front(now_ns);
    if (slot == no_slot) return slot;
    lane_.serve(slot, units_ == nullptr ? TenantFlows::units_per_work : units_[slot]);
    give_back(slot);
    return slot;
  }

  /// The slot whose item to take out, or no_slot if that item has left already.
  [[nodiscard]] std::uint32_t cancel(std::uint64_t ticket) noexcept;

  /// One item whose deadline is now or past, earliest first; no_slot if there is none.
  [[nodiscard]] std::uint32_t take_expired(base::TimeNs now_ns) noexcept;

  [[nodiscard]] bool has_expired(base::TimeNs now_ns) const noexcept {
    return lane_.has_deadlines() && lane_.next_deadline_ns() <= now_ns;
  }

  /// Names what is in `slot` now; no later item of the slot answers to it for 2^32 uses of that slot.
  [[nodiscard]] std::uint64_t ticket(std::uint32_t slot) const noexcept {
    return (std::uint64_t{generations_[slot]} << 32) | slot;
  }

  /// Whether pop and take_expired look at the time at all, so that the owner can save a clock read.
  [[nodiscard]] bool needs_now() const noexcept { return lane_.has_deadlines() || ages_; }

  [[nodiscard]] bool ages() const noexcept { return ages_; }
  [[nodiscard]] std::uint32_t size() const noexcept { return lane_.size(); }
  [[nodiscard]] base::TimeNs next_deadline_ns() const noexcept { return lane_.next_deadline_ns(); }

 private:
  /// Lowest first: the latest deadline is the least key, the newest comes first among equals.
  struct LowestFirst {
    TieredQueue* queue;
    std::uint32_t& position(std::uint32_t slot) const noexcept { return queue->shed_positions_[slot]; }
    bool first(std::uint32_t a, std::uint32_t b) const noexcept { return queue->slots_[a].seq > queue->slots_[b].seq; }
  };

  struct Tier {
    std::uint32_t size{};
    std::uint32_t capacity{};
    SlotHeap lowest;  // filled only with shed_lowest
  };

  [[nodiscard]] bool is_full(std::uint32_t tier) const noexcept {
    return lane_.size() >= capacity_ || tiers_[tier].size >= tiers_[tier].capacity;
  }
  [[nodiscard]] std::uint32_t lower_than(std::uint32_t tier, base::TimeNs deadline_ns) const noexcept;
  [[nodiscard]] bool keep_units() noexcept;
  [[nodiscard]] std::uint32_t take_slot() noexcept;
  void give_back(std::uint32_t slot) noexcept;

  std::uint32_t capacity_;
  bool shed_lowest_;
  bool ages_;
  QueueSlots slots_;
  std::unique_ptr<std::uint32_t[]> generations_;     // how often the slot was given back
  std::unique_ptr<std::uint32_t[]> shed_positions_;  // null without shed_lowest
  std::unique_ptr<std::int64_t[]> units_;            // of each item; null as long as all count 1
  TieredLane lane_;
  std::vector<Tier> tiers_;
  std::uint64_t next_seq_{};
  std::uint32_t n_touched_{};          // slots below were in use at least once
  std::uint32_t first_free_{no_slot};  // list of free touched slots, through by_seq.after
};

}  // namespace infcore::queue
