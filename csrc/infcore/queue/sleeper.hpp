#pragma once
#include <atomic>
#include <cstdint>
#include <infcore/base/align.hpp>
#include <infcore/base/clock.hpp>
#include <infcore/queue/futex.hpp>

namespace infcore::queue {

/// The sleep of one consumer thread. A wake-up costs tens of microseconds and a fence a few nanoseconds, so notifiers
/// ask first whether the owner sleeps, and only the first of them wakes it.
///
/// Threads    one owner calls wait; any number call notify.
/// Progress   notify wait-free; wait blocks.
/// Promise    no wake-up is lost: if a notifier made ready() true before notify(), the owner does not sleep through it.
///
/// Both sides write, fence, read: the notifier its data and then `asleep_`, the owner `asleep_` and then the data.
/// Sequentially consistent fences let at least one see the other's write [S1]. The data's own happens-before must come
/// from what ready() leads to (a ring, a chain), not from here. Model: tests/concurrency/sleeper.cpp.
template <template <class> class Atom = std::atomic, class Wait = FutexWait>
class alignas(base::false_sharing_bytes) Sleeper {
 public:
  Sleeper() = default;
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;

  /// Blocks until ready() or until_ns on CLOCK_MONOTONIC (never_ns: no time-out). Returns the last ready().
  template <class Ready>
  [[nodiscard]] bool wait(Ready&& ready, base::TimeNs until_ns) noexcept {
    for (;;) {
      if (ready()) return true;
      asleep_.store(yes, std::memory_order_relaxed);
      Wait::fence();  // [S1] pairs with the fence in notify()
      WaitOutcome outcome = WaitOutcome::look_again;
      if (!ready()) outcome = Wait::wait(asleep_, yes, until_ns);
      // Relaxed is enough: a notifier that still reads `yes` merely swaps it for nothing, or wakes a later sleep early.
      asleep_.store(no, std::memory_order_relaxed);
      if (outcome == WaitOutcome::timed_out) return ready();
    }
  }

  /// Call after having made ready() true. A fence and a load while the owner is awake; else one wake-up.
  void notify() noexcept {
    Wait::fence();  // [S1] pairs with the fence in wait()
    if (asleep_.load(std::memory_order_relaxed) == no) return;
    if (asleep_.exchange(no, std::memory_order_relaxed) == yes) Wait::wake(asleep_, 1);
  }

 private:
  static constexpr std::uint32_t no = 0;
  static constexpr std::uint32_t yes = 1;

  Atom<std::uint32_t> asleep_{no};
};

}  // namespace infcore::queue
