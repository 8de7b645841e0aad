#pragma once
#include <infcore/contracts/latency.hpp>

#include <cmath>
#include <cstdint>

namespace infcore::device {

/// Draws service times: the curve's value times a lognormal factor of mean 1 and coefficient of variation `cv`. Seeded;
/// no libm, so that the same seed gives the same times on every machine: normal by the sum of twelve uniforms
/// (Irwin-Hall: within 6 standard deviations), exp by a Taylor polynomial after halving.
class EmulatedTimer {
 public:
  EmulatedTimer(double cv, std::uint64_t seed) noexcept : state_(seed) {
    // s^2 = ln(1 + cv^2), by the series of atanh; the factor exp(s z - s^2 / 2) has mean 1.
    const double y = cv * cv / (2.0 + cv * cv), y2 = y * y;
    double term = y;
    for (int k = 0; k < 40; ++k, term *= y2) variance_ += 2.0 * term / (2 * k + 1);
    sigma_ = std::sqrt(variance_);  // exactly rounded by IEEE 754, so no libm either
  }

  [[nodiscard]] double service_s(const contracts::Curve& curve, const contracts::BatchShape& shape) noexcept {
    const double mean_s = curve.service_s(shape);
    return sigma_ == 0.0 ? mean_s : mean_s * exp(sigma_ * normal() - 0.5 * variance_);
  }

 private:
  double uniform() noexcept {  // SplitMix64 (Steele, Lea, Flood 2014)
    std::uint64_t z = state_ += 0x9E37'79B9'7F4A'7C15u;
    z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9u;
    z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EBu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }
  double normal() noexcept {
    double sum = -6.0;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }
  static double exp(double x) noexcept {
    double y = 1.0, term = 1.0;
    const double part = x * 0x1p-6;
    for (int k = 1; k <= 12; ++k) y += term *= part / k;
    for (int i = 0; i < 6; ++i) y *= y;
    return y;
  }

  std::uint64_t state_;
  double variance_{}, sigma_{};
};

}  // namespace infcore::device
