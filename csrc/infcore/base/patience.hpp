#pragma once
#include <atomic>
#include <mutex>

namespace infcore::base {

/// How a thread waits for a lock under which code of another language may run, which needs a lock of that language
/// (Python's GIL) to come out. Who waits must not hold that one, or both wait for ever: so a binding may take over.
struct Patience {
  /// Calls blocking(what) without the language's lock. Process-wide.
  using Hook = void (*)(void (*blocking)(void*), void* what);
  static inline std::atomic<Hook> hook{nullptr};
  /// Whether whoever calls from that language holds its lock, so that no two of them run at once.
  static inline std::atomic<bool> exclusive{false};

  static void wait(void (*blocking)(void*), void* what) noexcept {
    const Hook by = hook.load(std::memory_order_acquire);
    if (by == nullptr) {
      blocking(what);
    } else {
      by(blocking, what);
    }
  }
};

/// Costs what std::mutex costs; a wait, an attempt more.
class PatientMutex {
 public:
  void lock() noexcept {
    if (mutex_.try_lock()) return;
    Patience::wait([](void* mutex) { static_cast<std::mutex*>(mutex)->lock(); }, &mutex_);
  }
  bool try_lock() noexcept { return mutex_.try_lock(); }
  void unlock() noexcept { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

}  // namespace infcore::base
