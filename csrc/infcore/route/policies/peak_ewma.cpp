// Of two different candidates at random, the one of less cost = peak EWMA of its latencies * (requests in flight + 1).
// The average jumps to a latency above it at once, and sinks to lower ones, or to nothing while no answer comes, with
// the time constant tau: quick to leave a node that slows down, slow to trust it again.
//
// Source: Finagle's PeakEwma with P2C (finagle-core/loadbalancer/PeakEwma.scala, p2c/P2CPick.scala); linkerd2-proxy and
//   tower::load::PeakEwma derive from it. From them: w = exp(-dt / tau), where each look at a node counts as a latency
//   of 0 (its average sinks, its time stamp moves); two candidates, not all; a latency is from the choice of the node
//   to the end of the request, failed ones counting alike (they leave nodes that fail fast to failure accrual).
//   Finagle's rule for one without history: free while it has nothing in flight, else after all that have (its
//   penalty).
// Differs: one average for each model on each node, as a balancer per service keeps it, but requests in flight are the
//   node's over all models, its own figure included. Caller's cancels are not counted.
// Cost: O(nodes / 64) words and two exp of ours; an outcome O(1). 8 bytes a node, and 16 a node for each model that was
//   answered. Tunables: the seed; fixed: tau 10 s (the default of Finagle and linkerd), penalty. Ties: the lowest id.
#include <infcore/base/exp.hpp>
#include <infcore/route/routing_policy.hpp>
#include <infcore/route/two_choices.hpp>

#include <algorithm>
#include <new>

namespace infcore::route {
namespace {

constexpr double tau_s = 10.0;
constexpr double penalty_s = 140737.0;  // Finagle's Long.MaxValue >> 16 nanoseconds: a day and a half

/// Peak-sensitive average of one model's latencies on one node; 0: it was never answered, or long ago.
struct PeakAverage {
  double latency_s{};
  base::TimeNs as_of_ns{};

  void take(double observed_s, base::TimeNs now_ns) noexcept {
    const double since_s = base::seconds(std::max<base::TimeNs>(0, now_ns - as_of_ns));
    if (observed_s > latency_s) {
      latency_s = observed_s;
    } else if (latency_s > 0.0) {
      const double keep = since_s < 700.0 * tau_s ? base::exp(-since_s / tau_s) : 0.0;
      latency_s = latency_s * keep + observed_s * (1.0 - keep);
    }
    as_of_ns = std::max(as_of_ns, now_ns);
  }
};

class PeakEwma final : public RoutingPolicy {
 public:
  explicit PeakEwma(std::uint64_t seed) noexcept : choices_(seed) {}
  const char* name() const noexcept override { return "peak_ewma"; }
  bool binds_on_arrival() const noexcept override { return true; }

  void attach(const Fleet& fleet) override {
    fleet_ = &fleet;
    born_.resize(fleet.max_nodes());
    averages_.resize(fleet.max_models());
  }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    if (!view.filter(query)) return base::no_node;
    const auto [low, high] = choices_.draw(view);
    follow(low);
    follow(high);
    if (low == high) return low;
    const double cost_of_low = cost_s(query, low, view.inflight(low));
    return cost_s(query, high, view.inflight(high)) < cost_of_low ? high : low;
  }

  void observe(const RouteOutcome& outcome) noexcept override {
    if (fleet_->born(outcome.node) != born_[outcome.node.value]) return;  // the id is another node's by now
    auto& row = averages_[outcome.model.value];
    if (!row) row.reset(new (std::nothrow) PeakAverage[born_.size()]);
    if (row) row[outcome.node.value].take(outcome.latency_s, outcome.now_ns);
  }

 private:
  /// What was learned of a node that is gone is forgotten before the one that has its id now is chosen.
  void follow(NodeId node) noexcept {
    const std::uint64_t born = fleet_->born(node);
    if (born_[node.value] == born) return;
    born_[node.value] = born;
    for (auto& row : averages_)
      if (row) row[node.value] = {};
  }

  double cost_s(const RouteQuery& query, NodeId node, double n_inflight) noexcept {
    double latency_s = 0.0;
    if (auto& row = averages_[query.model.value]) {
      row[node.value].take(0.0, query.now_ns);
      latency_s = row[node.value].latency_s;
    }
    return latency_s == 0.0 && n_inflight != 0.0 ? penalty_s + n_inflight : latency_s * (n_inflight + 1.0);
  }

  TwoChoices choices_;
  const Fleet* fleet_{};
  std::vector<std::uint64_t> born_;                         // Fleet::born of the node that our averages are about
  std::vector<std::unique_ptr<PeakAverage[]>> averages_{};  // by model; by node
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_peak_ewma(std::uint64_t seed, RoutingOptions& /*options*/) {
  return std::make_unique<PeakEwma>(seed);
}

}  // namespace infcore::route
