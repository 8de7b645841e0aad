#pragma once
#include <infcore/base/clock.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace infcore::queue {

/// How far a model's requests are degraded: rung by rung with the load that is measured, time handed in.
///
/// The load of a moment is the wait that a request would have over the wait that counts as overload. Of a period the
/// least counts, so that a burst that is gone within it changes nothing (the standing queue of CoDel: Nichols and
/// Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012). One rung up after a period that never fell below 1 or
/// in which one arrival in ten found the model's limit reached; one down after one that fell to half, was offered no
/// more than 0.9 of the capacity and refused nobody at the limit. A period without arrivals is one of no load. O(1).
class AdmissionLadder {
 public:
  static constexpr base::TimeNs period_ns = 50'000'000;
  static constexpr double climb_at = 1.0, descend_at = 0.5, offered_at_most = 0.9;

  /// An arrival met that load. `capacity_per_s`: 0 where it is not known.
  std::uint32_t arrived(base::TimeNs now_ns, double load, double capacity_per_s, std::uint32_t n_rungs) noexcept {
    settle(now_ns, n_rungs);
    least_load_ = std::min(least_load_, load);
    capacity_per_s_ = capacity_per_s;
    ++n_arrived_;
    return rung_;
  }
  /// That arrival was refused for the model's limit.
  void refused() noexcept { ++n_refused_; }
  /// What has passed since is accounted for; returns how many of `n_rungs` are in force.
  std::uint32_t settle(base::TimeNs now_ns, std::uint32_t n_rungs) noexcept {
    const base::TimeNs n_periods = (now_ns - begin_ns_) / period_ns;
    if (n_periods <= 0) return rung_;
    const double offered = n_arrived_ / base::seconds(period_ns);
    if (n_arrived_ > 0.0 && (least_load_ >= climb_at || 10.0 * n_refused_ >= n_arrived_)) {
      rung_ = std::min(rung_ + 1, n_rungs);
    } else if (n_arrived_ == 0.0 ||
               (least_load_ <= descend_at && n_refused_ == 0.0 && offered <= offered_at_most * capacity_per_s_)) {
      rung_ -= rung_ > 0 ? 1 : 0;
    }
    const auto quiet = static_cast<std::uint32_t>(std::min<base::TimeNs>(n_periods - 1, rung_));
    rung_ -= quiet;
    begin_ns_ += n_periods * period_ns;
    least_load_ = std::numeric_limits<double>::infinity();
    n_arrived_ = n_refused_ = 0.0;
    return rung_;
  }
  [[nodiscard]] std::uint32_t rung() const noexcept { return rung_; }

 private:
  base::TimeNs begin_ns_{};
  double least_load_{std::numeric_limits<double>::infinity()}, capacity_per_s_{}, n_arrived_{}, n_refused_{};
  std::uint32_t rung_{};
};

}  // namespace infcore::queue
