#pragma once
#include <algorithm>
#include <limits>

namespace infcore::engine {

/// A bound on what may be done besides serving each request once, by counts and not by time, so that it means the same
/// at any load: each request earns a share, each deed costs one. What was not spent is kept up to a bound: enough for
/// a batch or a device that goes wrong after a quiet time, not for a day's worth of them.
class CountedBudget {
 public:
  /// A share that bounds nothing.
  static constexpr double unbounded = std::numeric_limits<double>::infinity();

  explicit constexpr CountedBudget(double at_start = 0.0) noexcept : left_(at_start) {}

  void earn(double share, double most) noexcept { left_ = std::min(left_ + share, std::max(left_, most)); }
  /// Whether there was something left.
  [[nodiscard]] bool spend(double share) noexcept {
    if (share == unbounded) return true;
    if (left_ < 1.0) return false;
    left_ -= 1.0;
    return true;
  }
  /// What was spent was well spent.
  void give_back() noexcept { left_ += 1.0; }
  [[nodiscard]] double left() const noexcept { return left_; }

 private:
  double left_;
};

}  // namespace infcore::engine
