#pragma once
#include <atomic>

namespace infcore::queue {

/// Lets one wake-up of a consumer stand for all that happens until it looks: a wake-up of an event loop costs a system
/// call, and often a switch of threads.
///
/// Threads    any number of notifiers, one consumer.
/// Progress   wait-free.
/// Promise    none is lost: what a notifier handed over before arm() is seen by a consumer that looks after the disarm()
///            which follows, whoever it was that woke it. Model: tests/concurrency/wake_once.cpp.
template <template <class> class Atom = std::atomic>
class WakeOnce {
 public:
  WakeOnce() = default;
  WakeOnce(const WakeOnce&) = delete;
  WakeOnce& operator=(const WakeOnce&) = delete;

  /// The notifier, after it has handed something over. True: the consumer has to be woken, and nobody else will.
  [[nodiscard]] bool arm() noexcept {
    // [W1] release: what was handed over is seen after the next disarm(), also through the arms in between.
    return !under_way_.exchange(true, std::memory_order_acq_rel);
  }

  /// The consumer, once it has woken and before it looks.
  void disarm() noexcept {
    under_way_.exchange(false, std::memory_order_acq_rel);  // [W1] acquire
  }

 private:
  Atom<bool> under_way_{false};
};

}  // namespace infcore::queue
