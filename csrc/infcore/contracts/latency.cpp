#include <infcore/contracts/latency.hpp>

#include <algorithm>
#include <cmath>

namespace infcore::contracts {
namespace {

// Observations of one direction that are remembered: 1 / (1 - 0.98) = 50.
constexpr double keep = 0.98;
constexpr int changed_after = 4;
// Until then a residual says more about the model than about the batch: nothing is clipped.
constexpr std::uint64_t young_observations = 8;
constexpr double clip_spreads = 3.0;
constexpr double clip_relative_min = 0.01;
// Weight of the ridge in observations: a guess gives way at once, a curve that was given holds for a few batches.
constexpr double ridge_without_prior = 0.01;
constexpr double ridge_with_prior = 0.25;
constexpr double spread_gain_min = 0.05;
constexpr double service_s_max = 1e9;
constexpr double figure_max = 1e150;  // squares of what is below are numbers

template <std::size_t N>
using Square = std::array<std::array<double, N>, N>;

/// Solves a*x = b for the features in `support` by Cholesky; the others are 0. False where `a` is not positive
/// definite in figures.
template <std::size_t N>
bool solve(const Square<N>& a, const std::array<double, N>& b, unsigned support, std::array<double, N>& x) noexcept {
  std::array<std::size_t, N> at{};
  std::size_t n = 0;
  for (std::size_t j = 0; j < N; ++j)
    if (support >> j & 1u) at[n++] = j;
  Square<N> lower{};
  std::array<double, N> y{};
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = a[at[i]][at[j]];
      for (std::size_t k = 0; k < j; ++k) sum -= lower[i][k] * lower[j][k];
      if (i != j) {
        lower[i][j] = sum / lower[j][j];
      } else if (sum > a[at[i]][at[i]] * 1e-13) {
        lower[i][i] = std::sqrt(sum);
      } else {
        return false;
      }
    }
    double rest = b[at[i]];
    for (std::size_t k = 0; k < i; ++k) rest -= lower[i][k] * y[k];
    y[i] = rest / lower[i][i];
  }
  x = {};
  for (std::size_t i = n; i-- > 0;) {
    double rest = y[i];
    for (std::size_t k = i + 1; k < n; ++k) rest -= lower[k][i] * x[at[k]];
    x[at[i]] = rest / lower[i][i];
  }
  return true;
}

template <std::size_t N>
double dot(const std::array<double, N>& a, const std::array<double, N>& b) noexcept {
  double sum = 0.0;
  for (std::size_t j = 0; j < N; ++j) sum += a[j] * b[j];
  return sum;
}

double non_negative(double x) noexcept { return x > 0.0 ? x : 0.0; }  // NaN too

/// No term beyond what a batch may take: then no prediction of a batch is infinite.
Curve bounded(const std::array<double, 4>& terms) noexcept {
  const auto one = [](double x) { return std::min(non_negative(x), service_s_max); };
  return {one(terms[0]), one(terms[1]), one(terms[2]), one(terms[3])};
}

}  // namespace

LatencyModel::LatencyModel(const Curve& prior, double spread) noexcept
    : curve_(bounded({prior.base_s, prior.per_request_s, prior.per_work_s, prior.per_padded_work_s})),
      deviation_(non_negative(spread) / sd_per_deviation),
      has_prior_(true) {
  estimate_ = {curve_.base_s, curve_.per_request_s, curve_.per_work_s, curve_.per_padded_work_s};
}

/// The ridge: each term may explain a whole batch like the first one. A feature that is 0 there is scaled as n is.
void LatencyModel::start(const Row& features, double scale_s) noexcept {
  const double ridge = has_prior_ ? ridge_with_prior : ridge_without_prior;
  information_ = {};
  for (std::size_t j = 0; j < n_features; ++j) {
    const double typical = (features[j] > 0.0 ? features[j] : features[1]) / scale_s;
    information_.at(j, j) = ridge * typical * typical;
  }
}

void LatencyModel::observe(const BatchShape& shape, double service_s) noexcept {
  const double n = shape.n_requests;
  const Row features{1.0, n, shape.work_sum, n * shape.work_max};
  const bool usable = shape.n_requests > 0 && service_s > 0.0 && service_s < service_s_max && features[2] >= 0.0 &&
                      features[2] < 1e18 && features[3] >= 0.0 && features[3] < 1e18;
  if (!usable) return;

  const double predicted_s = this->service_s(shape);
  const bool young = n_observed_ < young_observations;
  // While young the prediction may be off by orders of magnitude; then the larger of the two keeps weights sane.
  const double scale_s = young ? std::max(predicted_s, service_s) : predicted_s;
  if (n_observed_ == 0) start(features, scale_s);

  Row row{};
  for (std::size_t j = 0; j < n_features; ++j) row[j] = features[j] / scale_s;
  Row gain{};
  double uncertainty = 0.0;  // variance of the prediction in units of a batch's own
  double residual = 0.0;
  const auto is_sound = [&] {
    uncertainty = solve(information_.whole(), row, 0xF, gain) ? dot(row, gain) : 0.0;
    residual = service_s / scale_s - dot(row, estimate_);
    return uncertainty > 0.0 && uncertainty < figure_max && std::abs(residual) < figure_max;
  };
  if (!is_sound()) {  // rounding has eaten the matrix: begin again from the present curve
    estimate_ = {curve_.base_s, curve_.per_request_s, curve_.per_work_s, curve_.per_padded_work_s};
    start(features, scale_s);
    if (!is_sound()) return;
  }
  const double noise = std::sqrt(1.0 + uncertainty);

  const double limit = std::max(clip_spreads * spread(), clip_relative_min) * noise;
  const bool beyond = residual > limit || residual < -limit;
  const int sign = residual > 0.0 ? 1 : -1;
  if (!beyond) {
    clipped_run_ = 0;
  } else {
    clipped_run_ = clipped_run_ * sign > 0 ? std::clamp(clipped_run_ + sign, -changed_after, changed_after) : sign;
  }
  ++n_observed_;
  if (clipped_run_ * sign >= changed_after) return rescale(service_s / predicted_s, uncertainty);
  if (!young) residual = std::clamp(residual, -limit, limit);

  const double step = residual / (keep + uncertainty);
  const double added = 1.0 - (1.0 - keep) / uncertainty;  // the information on this row becomes keep * old + 1
  for (std::size_t j = 0; j < n_features; ++j) {
    estimate_[j] += gain[j] * step;
    for (std::size_t k = 0; k <= j; ++k) information_.at(j, k) += added * (row[j] * row[k]);
  }
  project();
  learn_spread((service_s - predicted_s) / (scale_s * noise));
}

/// The node has become `ratio` times as slow, as far as one batch can tell: every term, and what is known of the row at
/// hand (its information is 1 / uncertainty) counts as that one batch from here on.
void LatencyModel::rescale(double ratio, double uncertainty) noexcept {
  const double kept = std::min(uncertainty, 1.0) / (ratio * ratio);
  curve_ = bounded({curve_.base_s * ratio, curve_.per_request_s * ratio, curve_.per_work_s * ratio,
                    curve_.per_padded_work_s * ratio});
  estimate_ = {curve_.base_s, curve_.per_request_s, curve_.per_work_s, curve_.per_padded_work_s};
  for (double& term : information_.terms) term *= kept;
  clipped_run_ = 0;
}

/// Mean absolute standardised residual; one outlier counts for at most four times the present figure.
void LatencyModel::learn_spread(double standardised) noexcept {
  const double size = standardised < 0.0 ? -standardised : standardised;
  const double bound = std::max(4.0 * deviation_, 0.02);
  const double gain = std::max(1.0 / (static_cast<double>(n_observed_) + 1.0), spread_gain_min);
  deviation_ += gain * ((size < bound ? size : bound) - deviation_);  // no number counts as an outlier
}

/// curve_ = the nearest to estimate_ with no negative term. The last support usually still holds; if not, the
/// problem is strictly convex, so exactly one of the 16 supports passes.
void LatencyModel::project() noexcept {
  bool free = true;
  for (const double term : estimate_) free = free && term >= 0.0;
  if (free) {
    support_ = 0xF;
    curve_ = bounded(estimate_);
    return;
  }
  if (project_on(support_)) return;
  for (unsigned support = 0xF; support > 0; --support)
    if (project_on(support)) return;
  curve_ = {};  // nothing but noise around zero
}

/// Tries the solution whose terms outside `support` are 0; true where it is the projection (Karush-Kuhn-Tucker).
bool LatencyModel::project_on(unsigned support) noexcept {
  const Matrix information = information_.whole();
  Row target{};
  for (std::size_t j = 0; j < n_features; ++j) target[j] = dot(information[j], estimate_);
  Row terms{};
  if (!solve(information, target, support, terms)) return false;
  for (std::size_t j = 0; j < n_features; ++j) {
    if (terms[j] < 0.0) return false;
    if (support >> j & 1u) continue;
    const double slope = dot(information[j], terms) - target[j];
    // Rounding of the two sums; a term that is 0 either way may not be told to rise.
    const double tolerance = 1e-10 * (std::abs(target[j]) + std::abs(dot(information[j], terms)));
    if (slope < -tolerance) return false;
  }
  support_ = static_cast<std::uint8_t>(support);
  curve_ = bounded(terms);
  return true;
}

}  // namespace infcore::contracts
