#pragma once
#include <infcore/base/clock.hpp>

namespace infcore::engine {

/// Arrivals per second over the last one to two windows: the present window's count plus the share of the one before
/// that a window ending now would still cover. No exponentials, so the same bits on every machine. O(1).
template <base::TimeNs window_ns>
class ArrivalRateOver {
 public:
  void add(base::TimeNs now_ns) noexcept {
    roll(now_ns);
    ++count_;
  }

  [[nodiscard]] double per_s(base::TimeNs now_ns) noexcept {
    roll(now_ns);
    const double left = static_cast<double>(begin_ns_ + window_ns - now_ns) / static_cast<double>(window_ns);
    return (count_ + before_ * left) / base::seconds(window_ns);
  }

 private:
  void roll(base::TimeNs now_ns) noexcept {
    const base::TimeNs windows = (now_ns - begin_ns_) / window_ns;
    if (windows <= 0) return;
    before_ = windows == 1 ? count_ : 0.0;
    count_ = 0.0;
    begin_ns_ += windows * window_ns;
  }

  base::TimeNs begin_ns_{};
  double count_{}, before_{};
};

/// Over the last 10 to 20 ms: what fills a batch.
using ArrivalRate = ArrivalRateOver<10'000'000>;

}  // namespace infcore::engine
