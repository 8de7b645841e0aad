#pragma once
#include <infcore/base/align.hpp>
#include <infcore/base/clock.hpp>
#include <infcore/contracts/row_lock.hpp>

#include <array>
#include <cstdint>
#include <limits>

namespace infcore::contracts {

/// A figure of a Signal that was not given.
inline constexpr double not_given = std::numeric_limits<double>::quiet_NaN();

/// What a node says of itself. Fractions are 0..1; inflight is its total, running and waiting, ours included.
struct Signal {
  base::TimeNs as_of_ns{};
  double queue_depth{not_given};
  double inflight{not_given};
  double cpu{not_given};
  double gpu{not_given};
  double memory{not_given};
  double network{not_given};
  double packet_loss{not_given};
  double queue_wait_s{not_given};  ///< what a request that came now would wait
  double error_rate{not_given};    ///< share of its requests that fail
};

/// Credit that we hold on a node: requests sent and not ended, and the seconds they were predicted to take.
struct Credit {
  std::int64_t inflight{};
  std::int64_t reserved_ns{};
};

/// Our credit as it was at earlier times, so that a signal that is some time under way can be laid over what we have
/// done since. Sixteen points; when they are full, every second one of the older half goes: the newest eight are exact,
/// and the older ones lie further apart the older they are. Plain data.
class CreditHistory {
 public:
  static constexpr std::uint32_t capacity = 16;

  /// Times may stand still but not go back; what comes late counts as now.
  void record(base::TimeNs now_ns, const Credit& credit) noexcept {
    if (n_ > 0 && now_ns <= points_[n_ - 1].at_ns) {
      points_[n_ - 1].credit = credit;
      return;
    }
    if (n_ == capacity) {
      constexpr std::uint32_t half = capacity / 2;
      for (std::uint32_t i = 0; i < half / 2; ++i) points_[i] = points_[2 * i + 1];
      for (std::uint32_t i = half; i < capacity; ++i) points_[i - half / 2] = points_[i];
      n_ = capacity - half / 2;
    }
    points_[n_++] = {now_ns, credit};
  }

  [[nodiscard]] Credit at(base::TimeNs t_ns) const noexcept {
    for (std::uint32_t i = n_; i-- > 0;)
      if (points_[i].at_ns <= t_ns) return points_[i].credit;
    return {};
  }

 private:
  struct Point {
    base::TimeNs at_ns;
    Credit credit;
  };
  std::array<Point, capacity> points_{};
  std::uint32_t n_{};
};

/// One node's credit and signals: the exact figures, behind the row's lock. What scorers read is published from here
/// into the columns.
struct alignas(base::false_sharing_bytes) NodeCredit {
  RowLock<> lock;
  std::uint32_t slots{1};
  double rtt_s{};
  float pending_max{std::numeric_limits<float>::infinity()};  ///< requests in flight at which nothing more is sent
  Credit own;
  Credit own_at_inflight;    ///< ours at the time stamp of the signalled in-flight figure
  Credit own_at_queue_wait;  ///< and of the signalled queue wait
  Signal last;               ///< the newest value of each figure
  CreditHistory history;
};

}  // namespace infcore::contracts
