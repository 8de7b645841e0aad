#pragma once
#include <infcore/contracts/batch.hpp>

#include <array>
#include <cstdint>

namespace infcore::contracts {

/// Seconds that a batch takes: base + per_request*n + per_work*sum(work) + per_padded_work*n*max(work).
struct Curve {
  double base_s{};
  double per_request_s{};
  double per_work_s{};
  double per_padded_work_s{};

  [[nodiscard]] constexpr double service_s(const BatchShape& shape) const noexcept {
    const double n = shape.n_requests;
    return base_s + per_request_s * n + per_work_s * shape.work_sum + per_padded_work_s * (n * shape.work_max);
  }
};

/// What is assumed of a (model, node) pair of which nothing is known: no prior, no observation, none from its device
/// class. One millisecond a batch: any figure will do that lets the first batches go, since they replace it.
inline constexpr Curve unknown_curve{.base_s = 1e-3};

/// Online latency model of one (model, node) pair: recursive least squares of a batch's relative residual on the
/// features 1, n, sum(work), n*max(work).
///
/// - A row is divided by the predicted seconds, so that a batch of one weighs as much as a batch of 64.
/// - Forgetting is restricted to the direction of the row at hand (R. Kulhavy, "Restricted exponential forgetting in
///   real-time identification", Automatica 23(5), 1987, section 3): a node that sees one shape for hours keeps what it
///   knew of the others, and nothing winds up.
/// - A residual beyond three spreads is clipped; four of one sign in a row are a changed node, not outliers: then the
///   curve is scaled to the batch at hand, and the past counts no more than that batch.
/// - The recursion is free; predictions use its projection on coefficients >= 0 in the metric of the information
///   matrix, so they are positive and grow with n and with work.
///
/// One writer or reader at a time. No allocation, no clock, no libm (sqrt is exactly rounded by IEEE 754).
class LatencyModel {
 public:
  LatencyModel() noexcept = default;
  /// Starts from a curve, negative terms taken as 0. `spread` is the relative residual it is trusted to.
  explicit LatencyModel(const Curve& prior, double spread = spread_at_start) noexcept;

  /// Learn from one batch. A batch of nothing, or figures that are not finite or not positive, are passed over.
  void observe(const BatchShape& shape, double service_s) noexcept;

  /// Expected seconds, > 0.
  [[nodiscard]] double service_s(const BatchShape& shape) const noexcept {
    const double s = curve_.service_s(shape);
    return s > service_s_min ? s : service_s_min;
  }
  /// Seconds that about 99 of 100 batches stay below, were residuals normal: for deadlines.
  [[nodiscard]] double upper_s(const BatchShape& shape) const noexcept {
    return service_s(shape) * (1.0 + upper_spreads * spread());
  }
  /// The present estimate; each term is 0 to 1e9.
  [[nodiscard]] const Curve& curve() const noexcept { return curve_; }
  [[nodiscard]] std::uint64_t n_observed() const noexcept { return n_observed_; }
  /// Standard deviation of the relative residual, from its mean absolute value.
  [[nodiscard]] double spread() const noexcept { return deviation_ * sd_per_deviation; }
  [[nodiscard]] bool has_prior() const noexcept { return has_prior_; }
  /// Whether anybody may be refused or given up by what the curve says: it was given, or has seen as many batches as it
  /// has features. After one batch of one request, 28 that waited were predicted to take so long that all were given
  /// up.
  [[nodiscard]] bool is_trusted() const noexcept { return has_prior_ || n_observed_ >= n_features; }

  static constexpr std::uint32_t n_features = 4;
  static constexpr double service_s_min = 1e-9;
  static constexpr double spread_at_start = 0.1;
  static constexpr double upper_spreads = 2.33;  // the normal distribution's 99 % point

 private:
  static constexpr double sd_per_deviation = 1.2533141373155003;  // sqrt(pi / 2)
  using Row = std::array<double, n_features>;
  using Matrix = std::array<Row, n_features>;
  /// A symmetric matrix, of which half is kept: its lower triangle, row by row. There is one for each model and node.
  struct Symmetric {
    std::array<double, n_features*(n_features + 1) / 2> terms{};
    /// Precondition: k <= j.
    [[nodiscard]] double& at(std::size_t j, std::size_t k) noexcept { return terms[j * (j + 1) / 2 + k]; }
    [[nodiscard]] Matrix whole() const noexcept {
      Matrix m;
      for (std::size_t j = 0; j < n_features; ++j)
        for (std::size_t k = 0; k <= j; ++k) m[j][k] = m[k][j] = terms[j * (j + 1) / 2 + k];
      return m;
    }
  };

  void start(const Row& features, double scale_s) noexcept;
  void rescale(double ratio, double uncertainty) noexcept;
  void project() noexcept;
  bool project_on(unsigned support) noexcept;
  void learn_spread(double standardised) noexcept;

  Symmetric information_{};
  Row estimate_{};  // free of the sign constraint
  Curve curve_{unknown_curve};
  double deviation_{spread_at_start / sd_per_deviation};
  std::uint64_t n_observed_{};
  std::int32_t clipped_run_{};  // consecutive clipped residuals, signed
  std::uint8_t support_{0xF};   // features that were not held at 0 by the last projection
  bool has_prior_{};
};

}  // namespace infcore::contracts
