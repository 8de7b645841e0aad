#pragma once
#include <bit>
#include <cstdint>
#include <initializer_list>
#include <numbers>

namespace infcore::base {

/// exp and log without libm, so that the same input gives the same bits on every machine: within 4 and 2 units in the
/// last place. exp: |x| <= 700. log: x > 0 and normal.
[[nodiscard]] inline double exp(double x) noexcept {
  constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;  // their sum is ln 2
  const double halves = x * (1.0 / std::numbers::ln2);
  const auto k = static_cast<std::int64_t>(halves < 0.0 ? halves - 0.5 : halves + 0.5);
  const double r = (x - static_cast<double>(k) * ln2_high) - static_cast<double>(k) * ln2_low;
  double y = 1.0 / 6227020800.0;  // Taylor: |r| <= ln(2) / 2, so the 14th term is below 1e-17
  for (const double term : {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
                            1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0}) {
    y = y * r + term;
  }
  return y * std::bit_cast<double>(static_cast<std::uint64_t>(k + 1023) << 52);
}

[[nodiscard]] inline double log(double x) noexcept {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  auto exponent = static_cast<std::int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xF'FFFF'FFFF'FFFFu) | 0x3FF0'0000'0000'0000u);  // in [1, 2)
  if (m > std::numbers::sqrt2) m *= 0.5, ++exponent;
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;  // log m = 2 atanh s, |s| < 0.172
  double y = 1.0 / 21;
  for (const double term :
       {1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3, 1.0}) {
    y = y * s2 + term;
  }
  return static_cast<double>(exponent) * std::numbers::ln2 + 2.0 * s * y;
}

}  // namespace infcore::base
