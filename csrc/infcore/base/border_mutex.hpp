#pragma once
#include <infcore/base/patience.hpp>

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace infcore::base {

/// A lock for objects whose callers hold another language's lock (Python's GIL) in every lock() and unlock(), and may
/// give that one up in between. So two of these calls never run at once, and taking it is a load and a store instead of
/// two read-modify-writes: 17 ns of a Router's pick and done.
///
/// Where Patience::exclusive says that there is no such lock (no binding, or one without a GIL), it is a std::mutex.
/// Who waits has given up the language's lock.
class BorderMutex {
 public:
  // What is usual is small enough to be part of its caller.
  void lock() noexcept {
    // relaxed: set once, before the first of these objects is made; the language's lock orders what its holders do
    if (!Patience::exclusive.load(std::memory_order_relaxed) || held_.load(std::memory_order_relaxed))
      return lock_slowly();
    held_.store(true, std::memory_order_relaxed);
  }

  void unlock() noexcept {
    // relaxed: as above; nobody can begin to wait before the language's lock is free
    if (!Patience::exclusive.load(std::memory_order_relaxed) || n_waiting_.load(std::memory_order_relaxed) > 0)
      return unlock_slowly();
    held_.store(false, std::memory_order_relaxed);
  }

 private:
  [[gnu::noinline]] void lock_slowly() noexcept {
    if (!Patience::exclusive.load(std::memory_order_relaxed)) {
      if (!mutex_.try_lock()) Patience::wait([](void* mutex) { static_cast<std::mutex*>(mutex)->lock(); }, &mutex_);
      return;
    }
    while (held_.load(std::memory_order_relaxed)) wait();
    held_.store(true, std::memory_order_relaxed);
  }

  [[gnu::noinline]] void unlock_slowly() noexcept {
    if (!Patience::exclusive.load(std::memory_order_relaxed)) return mutex_.unlock();
    const std::lock_guard hold(mutex_);  // for who waits without the language's lock
    held_.store(false, std::memory_order_relaxed);
    freed_.notify_all();
  }

  void wait() noexcept {
    // Before the language's lock is given up, so that unlock() sees it.
    n_waiting_.store(n_waiting_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    Patience::wait(
        [](void* self) {
          auto& mutex = *static_cast<BorderMutex*>(self);
          std::unique_lock hold(mutex.mutex_);
          mutex.freed_.wait(hold, [&] { return !mutex.held_.load(std::memory_order_relaxed); });
        },
        this);
    n_waiting_.store(n_waiting_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  }

  std::atomic<bool> held_{false};
  std::atomic<int> n_waiting_{0};
  std::mutex mutex_;
  std::condition_variable freed_;
};

}  // namespace infcore::base
