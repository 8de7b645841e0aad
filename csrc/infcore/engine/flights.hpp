#pragma once
#include <infcore/contracts/request.hpp>
#include <infcore/engine/live_request.hpp>
#include <infcore/engine/stats.hpp>
#include <infcore/queue/slot_heap.hpp>

#include <cstdint>
#include <vector>

namespace infcore::engine {

/// Who waits for an equal request's answer, and until when. One run serves all that were no more urgent than it when
/// they came: whoever is more urgent than each that runs does not wait behind it, but runs as well.
///
/// Threads    the engine's owner.
/// Cost       O(runs under way with that key) to board; O(log waiting) for one with a deadline. Allocates nothing after
///            construction.
class Flights {
 public:
  struct Counts {
    std::uint64_t answered{}, failed{}, lost{}, expired{}, cancelled{};  ///< of those who waited
  };

  /// At most `n_max` requests are open at once.
  Flights(std::uint32_t n_max, std::uint32_t n_models);
  Flights(const Flights&) = delete;
  Flights& operator=(const Flights&) = delete;

  /// A request with a flight arrives. true: it waits; false: it is to run, or the answer is there (is_cached).
  [[nodiscard]] bool board(LiveRequest&) noexcept;
  /// It does not run after all: it was refused at once.
  void stay_behind(LiveRequest&) noexcept;
  /// It is taken back. false: it did not wait.
  [[nodiscard]] bool leave(LiveRequest&) noexcept;
  /// It has ended, `was_open`: and not by its caller before. Those who waited for it are then to be landed.
  void ended(LiveRequest&, const Action&, bool was_open, base::TimeNs now_ns) noexcept;

  /// The next flight that is to be landed; nullptr: none.
  [[nodiscard]] Flight* next_landing() noexcept;
  /// All who waited in it, linked by their seats' `after`: they have no role any more.
  [[nodiscard]] LiveRequest* take_waiting(Flight&) noexcept;

  [[nodiscard]] base::TimeNs next_deadline_ns() const noexcept {
    return deadlines_.empty() ? base::never_ns : deadlines_.top_key();
  }
  /// Who waited until now: it has no role any more. nullptr: nobody did.
  [[nodiscard]] LiveRequest* take_expired(base::TimeNs now_ns) noexcept;

  [[nodiscard]] Counts& counts(base::ModelId model) noexcept { return counts_[model.value]; }
  void add_to(Stats&, base::ModelId) const noexcept;

 private:
  struct Index {
    Flights* flights;
    std::uint32_t& position(std::uint32_t timer) const noexcept { return flights->timed_[timer]->seat.heap_place; }
    bool first(std::uint32_t a, std::uint32_t b) const noexcept { return a < b; }
  };

  void set_timer(LiveRequest&) noexcept;
  void drop_timer(LiveRequest&) noexcept;

  queue::SlotHeap deadlines_;
  std::vector<LiveRequest*> timed_;  ///< by timer; may be stale where it is free
  std::vector<std::uint32_t> free_timers_;
  std::vector<Counts> counts_;  ///< by model
  Flight *first_landing_{}, *last_landing_{};
};

}  // namespace infcore::engine
