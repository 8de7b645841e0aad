#pragma once
#include <atomic>
#include <mutex>

namespace infcore::base {

/// A mutex under which code of another language may be called that needs a lock of its own (Python's GIL). Who waits
/// for the mutex must not hold that lock, or both wait for ever: so a binding may say how waiting is done.
///
/// Costs what std::mutex costs; a wait, an attempt more.
class PatientMutex {
 public:
  /// Blocks until it has locked the mutex; may throw where that would never be. Process-wide.
  using Wait = void (*)(std::mutex& mutex);
  static void wait_by(Wait wait) noexcept { wait_.store(wait, std::memory_order_release); }

  void lock() {
    if (mutex_.try_lock()) return;
    const Wait wait = wait_.load(std::memory_order_acquire);
    if (wait == nullptr) {
      mutex_.lock();
    } else {
      wait(mutex_);
    }
  }
  bool try_lock() { return mutex_.try_lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  static inline std::atomic<Wait> wait_{nullptr};
  std::mutex mutex_;
};

}  // namespace infcore::base
