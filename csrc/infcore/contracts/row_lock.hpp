#pragma once
#include <atomic>
#include <cstdint>
#include <thread>

namespace infcore::contracts {

inline void yield_thread() noexcept { std::this_thread::yield(); }

/// A lock of four bytes for sections of a few dozen instructions, one per row of a table; works in shared memory.
///
/// Any number of threads. A thread that is stopped while it holds the lock holds up the others of this row; the others
/// yield, they do not sleep. Not fair, not recursive. BasicLockable, for std::lock_guard.
template <template <class> class Atom = std::atomic, void (*yield)() noexcept = yield_thread>
class RowLock {
 public:
  void lock() noexcept {
    // acquire [L1]: pairs with the release in unlock(), so that the row is seen as its last holder left it.
    while (held_.exchange(1, std::memory_order_acquire) != 0) {
      // relaxed: only when to try again; spinning on a load leaves the line shared
      while (held_.load(std::memory_order_relaxed) != 0) yield();
    }
  }
  void unlock() noexcept { held_.store(0, std::memory_order_release); }  // release [L1]

 private:
  Atom<std::uint32_t> held_{};
};

}  // namespace infcore::contracts
