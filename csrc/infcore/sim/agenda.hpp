#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/queue/slot_heap.hpp>

#include <cstdint>
#include <new>
#include <vector>

namespace infcore::sim {

/// What happens next: at most one time for each of a fixed number of owners. Cost: O(log owners). Ties come up by
/// lowest owner, so that the order of events does not depend on how they were made.
class Agenda {
 public:
  explicit Agenda(std::uint32_t n_owners) : at_ns_(n_owners, base::never_ns), positions_(n_owners) {}

  /// Moves the owner's time; never_ns: it has none.
  void set(std::uint32_t owner, base::TimeNs at_ns) {
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

 private:
  struct Index {
    Agenda* agenda;
    std::uint32_t& position(std::uint32_t owner) const noexcept { return agenda->positions_[owner]; }
    bool first(std::uint32_t a, std::uint32_t b) const noexcept { return a < b; }
  };

  queue::SlotHeap heap_;
  std::vector<base::TimeNs> at_ns_;
  std::vector<std::uint32_t> positions_;
};

}  // namespace infcore::sim
