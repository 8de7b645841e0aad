#pragma once
#include <algorithm>
#include <array>
#include <cstdint>

namespace infcore::contracts {

/// What lies between a request's dispatch to a node that makes tokens and its first token.
struct FirstTokenWork {
  double n_tokens{};  ///< of prompts that the node still has to compute, this one's included
  double n_beside{};  ///< requests that run there or wait
};

/// Online model of the seconds until a first token: base + per_token * n_tokens + per_beside * n_beside. Learned from
/// what an engine sees, so it needs no device's curve; nodes of a device class share one.
///
/// Recursive least squares with exponential forgetting on the relative residual (L. Ljung, System Identification, 2nd
/// ed., 1999, section 11.2), from a prior: with equal nodes and nothing known, the order of nodes is already that of
/// the tokens before them. Terms below 0 count as 0. No allocation, no clock, no libm. One thread at a time.
class FirstTokenModel {
 public:
  void observe(const FirstTokenWork& work, double seconds) noexcept {
    if (!(seconds > 0.0) || !(seconds < seconds_max)) return;
    const double scale = 1.0 / std::max(seconds, seconds_least);
    const Row x{scale, work.n_tokens * scale, work.n_beside * scale};
    Row gain{};
    // Forgets no more than it knows: what is never excited does not wind up.
    double kept = forgetting;
    for (std::size_t i = 0; i < n_terms; ++i)
      if (covariance_[i][i] > prior_variance[i] * forgetting) kept = 1.0;
    double denominator = kept, error = seconds * scale;
    for (std::size_t i = 0; i < n_terms; ++i) {
      for (std::size_t j = 0; j < n_terms; ++j) gain[i] += covariance_[i][j] * x[j];
      denominator += x[i] * gain[i];
      error -= terms_[i] * x[i];
    }
    for (std::size_t i = 0; i < n_terms; ++i) {
      terms_[i] += gain[i] / denominator * error;
      for (std::size_t j = 0; j < n_terms; ++j) {
        covariance_[i][j] = (covariance_[i][j] - gain[i] * gain[j] / denominator) / kept;
      }
    }
    ++n_observed_;
  }

  [[nodiscard]] double seconds(const FirstTokenWork& work) const noexcept {
    return std::max(terms_[0], 0.0) + per_token_s() * work.n_tokens + std::max(terms_[2], 0.0) * work.n_beside;
  }
  [[nodiscard]] double per_token_s() const noexcept { return std::max(terms_[1], per_token_least_s); }
  [[nodiscard]] std::uint64_t n_observed() const noexcept { return n_observed_; }

 private:
  static constexpr std::size_t n_terms = 3;
  using Row = std::array<double, n_terms>;
  static constexpr double forgetting = 0.99;  // a hundred requests back
  static constexpr double seconds_least = 1e-4, seconds_max = 1e5, per_token_least_s = 1e-9;
  /// Of the terms, over that of the relative residual: .05 s, 30 us and 1 ms, as devices of today have them.
  static constexpr Row prior_variance{0.025, 1e-8, 1e-5};

  Row terms_{0.0, 1e-5, 0.0};
  std::array<Row, n_terms> covariance_{
      {{prior_variance[0], 0, 0}, {0, prior_variance[1], 0}, {0, 0, prior_variance[2]}}};
  std::uint64_t n_observed_{};
};

}  // namespace infcore::contracts
