#pragma once
#include <ctime>

#include <cstdint>
#include <limits>

namespace infcore::base {

/// Nanoseconds on whatever clock the owner was handed; only differences and order mean anything.
using TimeNs = std::int64_t;

/// "No deadline", "no timer": later than every other time, so it needs no special case in an order.
inline constexpr TimeNs never_ns = std::numeric_limits<TimeNs>::max();

/// Read by drivers only (the live engine, the Python border). No stage calls it.
[[nodiscard]] inline TimeNs monotonic_ns() noexcept {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<TimeNs>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

[[nodiscard]] constexpr double seconds(TimeNs t_ns) noexcept { return static_cast<double>(t_ns) * 1e-9; }

/// Seconds to nanoseconds, rounded down; what does not fit is never_ns. Precondition: not NaN.
[[nodiscard]] constexpr TimeNs to_ns(double t_s) noexcept {
  constexpr double bound = 9.2e18;  // just inside int64
  const double t_ns = t_s * 1e9;
  if (t_ns >= bound) return never_ns;
  return t_ns <= -bound ? std::numeric_limits<TimeNs>::min() : static_cast<TimeNs>(t_ns);
}

/// a + b where either may be never_ns. Precondition: b >= 0.
[[nodiscard]] constexpr TimeNs add_ns(TimeNs a, TimeNs b) noexcept { return a > never_ns - b ? never_ns : a + b; }

}  // namespace infcore::base
