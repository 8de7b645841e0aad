#pragma once
#include <infcore/queue/done_chain.hpp>

#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace infcore::engine {

struct LiveRequest;

/// Where the completions of one event loop, or of all threads, arrive: a chain, and one wake-up for whatever is on it.
/// A loop watches fd(); threads wait on the condition. A hub lives as long as its engine.
class Hub {
 public:
  explicit Hub(bool for_loop) : fd_(for_loop ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1) {}
  ~Hub() {
    if (fd_ >= 0) close(fd_);
  }
  Hub(const Hub&) = delete;
  Hub& operator=(const Hub&) = delete;

  [[nodiscard]] int fd() const noexcept { return fd_; }
  queue::DoneChain<LiveRequest>& chain() noexcept { return chain_; }

  /// After push_chain; for a loop only the push that found the chain empty has to.
  void wake() noexcept {
    if (fd_ >= 0) {
      const std::uint64_t one = 1;
      [[maybe_unused]] const auto written = write(fd_, &one, sizeof one);  // fails only where it is set already
    } else {
      { const std::scoped_lock lock(mutex_); }  // a waiter is either before its look or asleep, never between
      woken_.notify_all();
    }
  }

  void clear() noexcept {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto n = read(fd_, &count, sizeof count);
  }

  /// Blocks a thread until ready(); false at the time-out (seconds from now; negative: none).
  template <class Ready>
  bool wait(Ready&& ready, double timeout_s) {
    std::unique_lock lock(mutex_);
    if (timeout_s < 0.0) {
      woken_.wait(lock, ready);
      return true;
    }
    const auto timeout = std::chrono::duration<double>(timeout_s < 1e9 ? timeout_s : 1e9);
    const auto until =
        std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(timeout);
    return woken_.wait_until(lock, until, ready);
  }

 private:
  queue::DoneChain<LiveRequest> chain_;
  const int fd_;
  std::mutex mutex_;
  std::condition_variable woken_;
};

}  // namespace infcore::engine
