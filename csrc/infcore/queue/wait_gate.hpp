#pragma once
#include <atomic>
#include <cstdint>
#include <infcore/base/clock.hpp>
#include <infcore/queue/futex.hpp>

namespace infcore::queue {

/// Guards a few hundred instructions at a time, never a system call, an allocation that may fail loudly, or code of the
/// caller's language. Half the price of std::mutex where nobody contends, and it yields where somebody does.
/// Threads: any. Progress: a stalled holder blocks all. Order: unfair. Model: tests/concurrency/wait_gate.cpp.
template <template <class> class Atom = std::atomic, class Wait = FutexWait>
class SpinLock {
 public:
  void lock() noexcept {
    // [L1] acquire: sees what the last holder wrote; pairs with the release [L1] in unlock().
    while (held_.exchange(true, std::memory_order_acquire)) {
      for (int i = 0; held_.load(std::memory_order_relaxed); ++i) {
        if (i >= n_looks) Wait::yield();
      }
    }
  }

  void unlock() noexcept {
    held_.store(false, std::memory_order_release);  // [L1]
  }

 private:
  static constexpr int n_looks = Wait::n_looks;

  Atom<bool> held_{false};
};

/// Where threads wait for a condition that a lock of the caller's guards: enter() under that lock, wait() without it,
/// then leave() and look again. open() under the lock after having changed the condition, wake() after unlocking.
///
/// Threads    any. Progress: enter, leave, open wait-free; wait blocks.
/// Promise    a thread that entered before an open() does not sleep through its wake(); it may wake for nothing.
///            Model: tests/concurrency/wait_gate.cpp.
template <template <class> class Atom = std::atomic, class Wait = FutexWait>
class WaitGate {
 public:
  /// The token for wait().
  [[nodiscard]] std::uint32_t enter() noexcept {
    n_waiting_.fetch_add(1, std::memory_order_relaxed);
    return epoch_.load(std::memory_order_relaxed);
  }

  [[nodiscard]] WaitOutcome wait(std::uint32_t token, base::TimeNs until_ns) noexcept {
    return Wait::wait(epoch_, token, until_ns);
  }

  void leave() noexcept { n_waiting_.fetch_sub(1, std::memory_order_relaxed); }

  /// True if somebody waits, so that wake() is needed. Relaxed throughout: the caller's lock orders it against enter().
  [[nodiscard]] bool open() noexcept {
    if (n_waiting_.load(std::memory_order_relaxed) == 0) return false;
    epoch_.fetch_add(1, std::memory_order_relaxed);
    return true;
  }

  void wake(std::uint32_t n_waiters) noexcept { Wait::wake(epoch_, n_waiters); }

 private:
  Atom<std::uint32_t> epoch_{0};
  Atom<std::uint32_t> n_waiting_{0};
};

}  // namespace infcore::queue
