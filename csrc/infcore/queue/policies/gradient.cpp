// Gradient: how many requests of a model may be open at once, from how much of their latency is run and how much wait.
// Source: the idea of Netflix's concurrency-limits, Gradient2: limit * (latency without load / latency now) + room for
// a queue, slowly. Where we differ:
// - The latency without load is that of the requests' own runs, which the engine sees apart. A long-term mean of the
//   whole latency, as there, drifts up under constant overload, and takes the limit along.
// - The gradient is applied to how many were open, not to the limit: a limit that starts high, or that was not reached
//   for a while, is right after one window.
// - Nothing is rounded: a limit of 1.5 lets the second in, and with one slot that is the one that waits while one runs.
//   The room for a queue is an eighth, at least one.
// - One batch runs while the next gathers: with batches of B a latency of 2 - 1 / B runs is no queue, and with any B
// one
//   of 1.5 runs is none, or what chance makes of a load of 0.8 would be refused.
// - It is never below 2 B - 1, what one slot has use for: where the device is not what requests wait for (a run of
//   microseconds behind an event loop), all of their latency would look like a queue.
// So it settles at tolerance * (open in runs) + 1 or an eighth: 2.5, 4 and 13.7 for 1, 2 and 8 slots and B = 1.
// Cost: O(1). Tunables: below.
#include <infcore/queue/admission_policy.hpp>

#include <algorithm>
#include <limits>

namespace infcore::queue {
namespace {

constexpr std::uint32_t window_min = 16;  ///< answers that a step looks at, at least; and as many as are open
constexpr double smoothing = 0.5;         ///< share of a step that is taken
constexpr double gradient_min = 0.5;      ///< no step below half of what was open
constexpr double queue_share = 0.125, queue_min = 1.0;
constexpr double tolerance_min = 1.5;  ///< Gradient2's

class Gradient final : public AdmissionPolicy {
 public:
  explicit Gradient(std::uint32_t max_models) : models_(max_models) {}

 private:
  struct Model {
    double limit{std::numeric_limits<double>::infinity()};
    double latency_s{}, service_s{}, n_open{};  ///< sums over the window
    std::uint32_t n{}, n_wanted{window_min}, n_open_max{};
  };

  Verdict admit(const Arrival& a) noexcept override {
    const Model& m = models_[a.model];
    if (static_cast<double>(a.n_open) < m.limit) return {};
    const double over = static_cast<double>(a.n_open) - m.limit + 1.0;
    const double after_s = a.capacity_per_s > 0.0 ? over / a.capacity_per_s : 0.0;
    return {.entry = Entry::refuse, .retry_after_s = std::max(after_s, retry_after_s_min)};
  }

  void answered(const Answered& a) noexcept override {
    Model& m = models_[a.model];
    m.latency_s += a.latency_s;
    m.service_s += a.service_s;
    m.n_open += a.n_open;
    m.n_open_max = std::max(m.n_open_max, a.n_open);
    if (++m.n < m.n_wanted) return;
    step(m, a);
    m.latency_s = m.service_s = m.n_open = 0.0;
    m.n = m.n_open_max = 0;
    m.n_wanted = std::max(window_min, a.n_open);
  }

  static void step(Model& m, const Answered& a) noexcept {
    const double tolerance = std::max(tolerance_min, 2.0 - 1.0 / a.max_batch_size);
    const double gradient = m.latency_s > 0.0 ? tolerance * m.service_s / m.latency_s : 1.0;
    const double open = m.n_open / m.n;
    const double was = std::min(m.limit, static_cast<double>(m.n_open_max));
    const double room = std::max(queue_min, queue_share * was);
    if (gradient >= 1.0) {  // no queue to speak of: more, if what there is was used
      if (m.n_open_max < 0.5 * m.limit) return;
      m.limit += smoothing * room;
      return;
    }
    const double next = std::max(gradient, gradient_min) * open + room;
    m.limit = std::max(2.0 * a.max_batch_size - 1.0, was + smoothing * (next - was));
  }

  double limit(std::uint32_t model) const noexcept override { return models_[model].limit; }

  std::vector<Model> models_;
};

}  // namespace

std::unique_ptr<AdmissionPolicy> make_gradient(std::uint32_t max_models) {
  return std::make_unique<Gradient>(max_models);
}

}  // namespace infcore::queue
