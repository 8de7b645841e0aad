#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/queue/slot_heap.hpp>

#include <cstdint>
#include <new>
#include <vector>

namespace infcore::engine {

/// At most one timer for each of a number of owners, so that memory is bounded by them and not by how often a time is
/// set. A timer may come up early for its owner's present needs, never late: the owner looks, and sets the next. Cost:
/// O(log timers); O(1) where the time is later than the one that is set. Ties come up by lowest owner.
class Timers {
 public:
  /// Owners are 0 to n - 1; keeps what is set.
  void resize(std::uint32_t n) {
    at_ns_.resize(n, base::never_ns);
    positions_.resize(n);
  }

  /// The owner's timer comes up at `at_ns` at the latest; never_ns: nothing to set.
  void set(std::uint32_t owner, base::TimeNs at_ns) {
    if (at_ns >= at_ns_[owner]) return;
    if (at_ns_[owner] != base::never_ns) {
      heap_.remove(Index{this}, owner);
    } else if (!heap_.make_room()) {
      throw std::bad_alloc();
    }
    at_ns_[owner] = at_ns;
    heap_.push(Index{this}, at_ns, owner);
  }

  [[nodiscard]] base::TimeNs next_ns() const noexcept { return heap_.empty() ? base::never_ns : heap_.top_key(); }

  /// The owner whose timer is next. Precondition: there is one.
  std::uint32_t pop() noexcept {
    const std::uint32_t owner = heap_.top();
    heap_.remove(Index{this}, owner);
    at_ns_[owner] = base::never_ns;
    return owner;
  }

  [[nodiscard]] std::uint32_t size() const noexcept { return heap_.size(); }

 private:
  struct Index {
    Timers* timers;
    std::uint32_t& position(std::uint32_t owner) const noexcept { return timers->positions_[owner]; }
    bool first(std::uint32_t a, std::uint32_t b) const noexcept { return a < b; }
  };

  queue::SlotHeap heap_;
  std::vector<base::TimeNs> at_ns_;
  std::vector<std::uint32_t> positions_;
};

}  // namespace infcore::engine
