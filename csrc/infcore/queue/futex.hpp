#pragma once
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <infcore/base/clock.hpp>
#include <thread>

namespace infcore::queue {

enum class WaitOutcome : std::uint8_t {
  look_again,  ///< woken, or the word had changed, or for no reason
  timed_out,
  interrupted,  ///< a signal handler ran on this thread
};

/// The kernel's wait on a 32-bit word, private to the process. A waiting primitive of Sleeper, SpinLock and WaitGate is
/// any type with these members, so that a model checker can bring its own.
struct FutexWait {
  /// Blocks while `word` is `expected`, until wake() or until_ns on CLOCK_MONOTONIC (never_ns: no time-out).
  [[nodiscard]] static WaitOutcome wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                                        base::TimeNs until_ns) noexcept {
    timespec until{};
    const base::TimeNs at_ns = std::max<base::TimeNs>(until_ns, 0);
    until.tv_sec = at_ns / 1'000'000'000;
    until.tv_nsec = at_ns % 1'000'000'000;
    // WAIT_BITSET takes an absolute time, on the monotonic clock; plain WAIT would take a relative one.
    const auto rc = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
                            until_ns == base::never_ns ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
    if (rc == 0) return WaitOutcome::look_again;
    if (errno == ETIMEDOUT) return WaitOutcome::timed_out;
    return errno == EINTR ? WaitOutcome::interrupted : WaitOutcome::look_again;
  }

  static void wake(const std::atomic<std::uint32_t>& word, std::uint32_t n_waiters) noexcept {
    const auto n = static_cast<int>(std::min<std::uint32_t>(n_waiters, 0x7FFF'FFFFu));
    static_cast<void>(syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, n, nullptr, nullptr, 0));
  }

  /// How often to look at a held lock before yielding: about the length of a critical section; not tuned.
  static constexpr int n_looks = 64;
  static void yield() noexcept { std::this_thread::yield(); }

  /// Orders a store before it against a load after it. Model: tests/concurrency/sleeper.cpp. GCC's thread sanitizer
  /// does not see fences; nothing here leans on this one for happens-before, only for store-load order.
  static void fence() noexcept { std::atomic_thread_fence(std::memory_order_seq_cst); }
};

static_assert(sizeof(std::atomic<std::uint32_t>) == 4 && std::atomic<std::uint32_t>::is_always_lock_free);

}  // namespace infcore::queue
