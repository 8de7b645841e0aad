#pragma once
#include <infcore/base/exp.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace infcore::base {

/// A stream of pseudo-random numbers: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). Same seed, same numbers, on every
/// machine. Ten to thirty nanoseconds a draw.
class Draw {
 public:
  explicit constexpr Draw(std::uint64_t seed) noexcept : state_(seed) {}
  /// The stream of one of several consumers under one seed: streams of different `consumer` have nothing in common.
  constexpr Draw(std::uint64_t seed, std::uint64_t consumer) noexcept : state_(mixed(seed) ^ mixed(~consumer)) {}

  constexpr std::uint64_t bits() noexcept { return mixed(state_ += 0x9E37'79B9'7F4A'7C15u); }
  /// In [0, 1).
  constexpr double uniform() noexcept { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  /// Mean 1.
  double exponential() noexcept { return -log(1.0 - uniform()); }
  /// Mean 0, variance 1: the inverse of the distribution function by rational approximation, 1e-16 (M. J. Wichura,
  /// "Algorithm AS 241", Applied Statistics 37(3), 1988). One uniform a number.
  double normal() noexcept;
  /// Mean 1, coefficient of variation `cv` > 0 (G. Marsaglia, W. W. Tsang, "A simple method for generating gamma
  /// variables", ACM TOMS 26(3), 2000).
  double gamma(double cv) noexcept;

 private:
  static constexpr std::uint64_t mixed(std::uint64_t z) noexcept {
    z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9u;
    z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EBu;
    return z ^ (z >> 31);
  }

  std::uint64_t state_;
};

namespace detail {

template <int N>
[[nodiscard]] constexpr double polynomial(const double (&from_constant)[N], double x) noexcept {
  double y = 0.0;
  for (int i = N; i-- > 0;) y = y * x + from_constant[i];
  return y;
}

// The coefficients of AS 241's PPND16: near the middle, in the tails, far out.
inline constexpr double middle_over[] = {3.3871328727963666080e0,  1.3314166789178437745e+2, 1.9715909503065514427e+3,
                                         1.3731693765509461125e+4, 4.5921953931549871457e+4, 6.7265770927008700853e+4,
                                         3.3430575583588128105e+4, 2.5090809287301226727e+3};
inline constexpr double middle_under[] = {1.0,
                                          4.2313330701600911252e+1,
                                          6.8718700749205790830e+2,
                                          5.3941960214247511077e+3,
                                          2.1213794301586595867e+4,
                                          3.9307895800092710610e+4,
                                          2.8729085735721942674e+4,
                                          5.2264952788528545610e+3};
inline constexpr double tail_over[] = {1.42343711074968357734e0,  4.63033784615654529590e0, 5.76949722146069140550e0,
                                       3.64784832476320460504e0,  1.27045825245236838258e0, 2.41780725177450611770e-1,
                                       2.27238449892691845833e-2, 7.74545014278341407640e-4};
inline constexpr double tail_under[] = {1.0,
                                        2.05319162663775882187e0,
                                        1.67638483018380384940e0,
                                        6.89767334985100004550e-1,
                                        1.48103976427480074590e-1,
                                        1.51986665636164571966e-2,
                                        5.47593808499534494600e-4,
                                        1.05075007164441684324e-9};
inline constexpr double far_over[] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,
                                      2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                      2.71155556874348757815e-5, 2.01033439929228813265e-7};
inline constexpr double far_under[] = {1.0,
                                       5.99832206555887937690e-1,
                                       1.36929880922735805310e-1,
                                       1.48753612908506148525e-2,
                                       7.86869131145613259100e-4,
                                       1.84631831751005468180e-5,
                                       1.42151175831644588870e-7,
                                       2.04426310338993978564e-15};

}  // namespace detail

inline double Draw::normal() noexcept {
  using detail::polynomial;
  // Never 0 or 1: the largest uniform and 2^-54 would round to 1.
  const double p = std::min(uniform() + 0x1p-54, 1.0 - 0x1p-53), q = p - 0.5;
  if (q >= -0.425 && q <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(detail::middle_over, r) / polynomial(detail::middle_under, r);
  }
  const double r = std::sqrt(-log(q < 0.0 ? p : 1.0 - p));  // sqrt is exactly rounded by IEEE 754
  const double x = r <= 5.0 ? polynomial(detail::tail_over, r - 1.6) / polynomial(detail::tail_under, r - 1.6)
                            : polynomial(detail::far_over, r - 5.0) / polynomial(detail::far_under, r - 5.0);
  return q < 0.0 ? -x : x;
}

inline double Draw::gamma(double cv) noexcept {
  const double shape = 1.0 / (cv * cv);
  const double raised = shape < 1.0 ? shape + 1.0 : shape;
  const double d = raised - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = normal(), t = 1.0 + c * x;
    if (t <= 0.0) continue;
    const double v = t * t * t;
    if (log(1.0 - uniform()) >= 0.5 * x * x + d - d * v + d * log(v)) continue;
    // A shape below 1: that of shape + 1, times a uniform to the power of 1 / shape.
    const double lowered = shape < 1.0 ? exp(std::max(-exponential() / shape, -700.0)) : 1.0;
    return d * v * lowered / shape;
  }
}

/// A factor of mean 1, lognormal with coefficient of variation `cv`.
class LognormalFactor {
 public:
  explicit LognormalFactor(double cv = 0.0) noexcept
      : variance_(cv > 0.0 ? log(1.0 + cv * cv) : 0.0), sigma_(std::sqrt(variance_)) {}
  [[nodiscard]] double draw(Draw& draw) const noexcept {
    return sigma_ == 0.0 ? 1.0 : exp(sigma_ * draw.normal() - 0.5 * variance_);
  }

 private:
  double variance_, sigma_;
};

}  // namespace infcore::base
