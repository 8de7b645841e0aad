#pragma once
#include <infcore/base/clock.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

namespace infcore::contracts {

/// Credit that is held on a node: requests sent and not ended, and the seconds they were predicted to take.
struct Credit {
  std::int64_t inflight{};
  std::int64_t reserved_ns{};
};

/// One process's credit on one node, with its newest changes and their times, so that a signal that was some time under
/// way can be laid over what was done since.
///
/// Any number of threads add, wait-free; any number read, without a lock. Where more than `n_points` changes are newer
/// than the time that is asked for, those before the newest are taken to cancel out. A reader tries again while
/// somebody is half way through an add, some times; then it takes what it has. Zeroed memory is an empty cell.
template <template <class> class Atom = std::atomic, std::uint32_t n_points = 16>
class CreditCell {
  static_assert((n_points & (n_points - 1)) == 0, "the count of changes wraps around");

 public:
  struct Reading {
    Credit total;
    Credit since;  ///< what of it came after the time that was asked for
    bool exact;    ///< false: somebody was half way through an add all the time
  };

  void add(const Credit& by, base::TimeNs at_ns) noexcept {
    // Count and requests in one word, so that each change has a place of its own. relaxed: see [C2], [C3]
    const std::uint64_t before =
        word_.fetch_add((std::uint64_t{1} << 32) + static_cast<std::uint64_t>(by.inflight), std::memory_order_relaxed);
    const std::uint32_t index = count_of(before);
    // release [C2]: who sees these seconds sees that the change was begun.
    reserved_ns_.fetch_add(by.reserved_ns, std::memory_order_release);
    Point& point = points_[index % n_points];
    // release [C3]: who reads this time in place of an older one sees that the change was begun.
    point.at_ns.store(at_ns, std::memory_order_release);
    point.what.store(packed(by, round_of(index)), std::memory_order_release);  // release [C1]: the change is whole
  }

  /// From here on the changes so far count as older than any time that is asked for. As wait-free as add, which it is:
  /// empty changes come between.
  void forget_changes() noexcept {
    if (count_of(word_.load(std::memory_order_relaxed)) == 0) return;  // relaxed: who never had any has nothing to hide
    for (std::uint32_t i = 0; i < n_points; ++i) add({}, 0);
  }

  /// What is held; exact but for changes that are under way.
  [[nodiscard]] Credit total() const noexcept {
    return {requests_of(word_.load(std::memory_order_relaxed)), reserved_ns_.load(std::memory_order_relaxed)};
  }

  template <class Pause>
  [[nodiscard]] Reading read(base::TimeNs since_ns, std::uint32_t n_tries, Pause pause) const noexcept {
    Reading reading{};
    for (std::uint32_t i = 0; i < n_tries; ++i) {
      if (i > 0) pause();
      const std::uint64_t before = word_.load(std::memory_order_relaxed);
      reading = {};
      const bool whole = add_up(count_of(before), since_ns, reading.since);
      reading.total.inflight = requests_of(before);
      reading.total.reserved_ns = reserved_ns_.load(std::memory_order_acquire);  // acquire [C2]
      // relaxed: the acquires before it bring the word of every change of which something was seen
      reading.exact = whole && word_.load(std::memory_order_relaxed) == before;
      if (reading.exact) break;
    }
    return reading;
  }

  /// Before another process has it; nobody else uses it then.
  void clear() noexcept {
    word_.store(0, std::memory_order_relaxed);
    reserved_ns_.store(0, std::memory_order_relaxed);
    for (Point& point : points_) point.what.store(0, std::memory_order_relaxed);
  }

 private:
  struct Point {
    Atom<base::TimeNs> at_ns{};
    Atom<std::uint64_t> what{};  ///< 6 bits of its round, 18 of requests, 40 of nanoseconds
  };

  /// The sum of the changes that are newer; false where one of the newest is not whole.
  bool add_up(std::uint32_t count, base::TimeNs since_ns, Credit& since) const noexcept {
    bool whole = true;
    const std::uint32_t n = std::min(count, n_points);  // after 2^32 changes: some are left out, once
    for (std::uint32_t k = 1; k <= n; ++k) {
      const Point& point = points_[(count - k) % n_points];
      const std::uint64_t what = point.what.load(std::memory_order_acquire);  // acquire [C1]
      const bool this_round = (what & 63u) == round_of(count - k);
      whole = whole && this_round;
      if (!this_round || point.at_ns.load(std::memory_order_acquire) <= since_ns) continue;  // acquire [C3]
      since.inflight += static_cast<std::int64_t>(what << 40) >> 46;
      since.reserved_ns += static_cast<std::int64_t>(what) >> 24;
    }
    return whole;
  }

  // The word is count * 2^32 + requests, and requests may be negative for a moment: a release that overtakes.
  static std::int64_t requests_of(std::uint64_t word) noexcept {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(word));
  }
  static std::uint32_t count_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>((word - static_cast<std::uint64_t>(requests_of(word))) >> 32);
  }
  /// Of zeroed memory it is nobody's: the first round is 1.
  static std::uint64_t round_of(std::uint32_t index) noexcept { return (index / n_points + 1) & 63u; }
  static std::uint64_t packed(const Credit& by, std::uint64_t round) noexcept {
    constexpr std::int64_t requests_max = (1 << 17) - 1, ns_max = (std::int64_t{1} << 39) - 1;
    const std::int64_t requests = std::clamp(by.inflight, -requests_max, requests_max);
    const std::int64_t ns = std::clamp(by.reserved_ns, -ns_max, ns_max);
    return round | (static_cast<std::uint64_t>(requests) & 0x3FFFFu) << 6 | static_cast<std::uint64_t>(ns) << 24;
  }

  Atom<std::uint64_t> word_{};
  Atom<std::int64_t> reserved_ns_{};
  std::array<Point, n_points> points_{};
};

}  // namespace infcore::contracts
