#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/queue/slot_heap.hpp>

#include <cstdint>
#include <new>
#include <vector>

namespace infcore::engine {

/// At most one timer for each of a number of owners, so that memory is bounded by them and not by how often a time is
/// set. Cost: O(log timers). Ties come up by lowest owner, so that the order of events does not depend on how they were
/// made.
class Timers {
 public:
  /// Owners are 0 to n - 1; keeps what is set.
  void resize(std::uint32_t n) {
    at_ns_.resize(n, base::never_ns);
    positions_.resize(n);
  }

  /// The owner's timer comes up at `at_ns` at the latest; never_ns: nothing to set. So it may come up early for the
  /// owner's present needs, never late: the owner looks, and sets the next. O(1) where an earlier one is set.
  void set(std::uint32_t owner, base::TimeNs at_ns) {
    if (at_ns < at_ns_[owner]) move(owner, at_ns);
  }

  /// The owner's timer comes up at `at_ns`, whatever was set; never_ns: it has none.
  void move(std::uint32_t owner, base::TimeNs at_ns) {
    if (at_ns_[owner] != base::never_ns) heap_.remove(Index{this}, owner);
    at_ns_[owner] = at_ns;
    if (at_ns == base::never_ns) return;
    if (!heap_.make_room()) throw std::bad_alloc();
    heap_.push(Index{this}, at_ns, owner);
  }

  [[nodiscard]] base::TimeNs next_ns() const noexcept { return heap_.empty() ? base::never_ns : heap_.top_key(); }

  /// Precondition: next_ns() != never_ns.
  [[nodiscard]] std::uint32_t next_owner() const noexcept { return heap_.top(); }
  [[nodiscard]] base::TimeNs at_ns(std::uint32_t owner) const noexcept { return at_ns_[owner]; }

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
