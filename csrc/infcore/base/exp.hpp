#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace infcore::base {

/// exp(-x) for x >= 0, within 1e-12 of itself, and 0 from 700 on (1e-304). No libm: the same bits on every machine.
/// x = n ln 2 + r with |r| <= ln 2 / 2; a Taylor polynomial of exp(-r), whose first term left out is r^11 / 11! <
/// 3e-13, and n is taken off the exponent.
[[nodiscard]] constexpr double exp_of_minus(double x) noexcept {
  if (!(x < 700.0)) return 0.0;
  constexpr double ln_2 = 0.69314718055994531;
  constexpr auto reciprocal_factorials = [] {
    std::array<double, 11> r{1.0};
    for (std::size_t k = 1; k < r.size(); ++k) r[k] = r[k - 1] / static_cast<double>(k);
    return r;
  }();
  const auto n = static_cast<std::int64_t>(x * (1.0 / ln_2) + 0.5);
  const double y = static_cast<double>(n) * ln_2 - x;
  double sum = 0.0;
  for (std::size_t k = reciprocal_factorials.size(); k-- > 0;) sum = sum * y + reciprocal_factorials[k];
  return sum * std::bit_cast<double>((1023 - n) << 52);
}

}  // namespace infcore::base
