// Each node in turn, a node of twice the weight twice as often, and spread out rather than in a row: a node's account
// grows by its weight at every choice; the fullest account is chosen and pays the sum of all weights.
//
// Source: nginx's smooth weighted round robin (ngx_http_upstream_round_robin, 1.3.1; the rule in its commit message).
// Differs: accounts for each model, and of the candidates alone: who may not be chosen neither earns nor pays. Weights
//   are a node's slots by default, or its speed as the latency curves have it. A node that comes starts at nothing.
// Cost: O(candidates). 8 bytes a node, and 8 a node for each model that was asked for.
// Tunables: weight = "slots" (default), "speed" (slots / predicted seconds of a request of work 1), or "label": the
//   number in the node's label `weight`, 0.000001 to 1000000 (else, or without: 1). Ties go to the lowest id.
// In an engine: binds on arrival.
#include <infcore/base/errors.hpp>
#include <infcore/route/node_facts.hpp>
#include <infcore/route/routing_policy.hpp>

#include <algorithm>
#include <charconv>
#include <new>

namespace infcore::route {
namespace {

constexpr double least_weight = 1e-6, most_weight = 1e6;

enum class Weight : std::uint8_t { slots, speed, label };

Weight weight_of(const std::string& name) {
  if (name == "slots") return Weight::slots;
  if (name == "speed") return Weight::speed;
  if (name == "label") return Weight::label;
  throw InvalidArgument("weight", "'" + name + "'", "'slots', 'speed', 'label'");
}

double labelled_weight(const NodeSpec& spec) noexcept {
  for (const auto& [key, text] : spec.labels) {
    if (key != "weight") continue;
    double weight = 0.0;
    const auto end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, weight);
    const bool right = read.ec == std::errc{} && read.ptr == end && weight >= least_weight && weight <= most_weight;
    return right ? weight : 1.0;
  }
  return 1.0;
}

class Weighted final : public RoutingPolicy {
 public:
  explicit Weighted(Weight weight) noexcept : weight_(weight) {}
  const char* name() const noexcept override { return "weighted"; }
  bool binds_on_arrival() const noexcept override { return true; }

  void attach(const Fleet& fleet) override {
    labelled_.attach(fleet);
    accounts_.resize(fleet.max_models());
    n_nodes_ = fleet.max_nodes();
  }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    if (!view.filter(query)) return base::no_node;
    follow();
    auto& row = accounts_[query.model.value];
    if (!row) row.reset(new (std::nothrow) double[n_nodes_]{});
    if (!row) return view.next_candidate(0);
    double total = 0.0;
    NodeId best = base::no_node;
    for (NodeId node = view.next_candidate(0); node != base::no_node; node = view.next_candidate(node.value + 1)) {
      const double weight = weight_on(node, query.model, view);
      row[node.value] += weight;
      total += weight;
      if (best == base::no_node || row[node.value] > row[best.value]) best = node;
    }
    row[best.value] -= total;
    return best;
  }

  void consider(const RouteQuery& query, RouteView& view) noexcept override {
    next_ = base::no_node;
    const auto& row = accounts_[query.model.value];
    if (!view.filter(query)) return;
    follow();
    double most = 0.0;
    for (NodeId node = view.next_candidate(0); node != base::no_node; node = view.next_candidate(node.value + 1)) {
      const double account = (row ? row[node.value] : 0.0) + weight_on(node, query.model, view);
      if (next_ == base::no_node || account > most) next_ = node, most = account;
    }
  }
  std::string left_out(NodeId node) const override {
    return next_ == base::no_node || node == next_ ? "" : "it is another node's turn";
  }

 private:
  void follow() noexcept {
    labelled_.follow([this](NodeId node, const NodeSpec& spec) {
      for (auto& row : accounts_)
        if (row) row[node.value] = 0.0;
      return labelled_weight(spec);
    });
  }

  [[nodiscard]] double weight_on(NodeId node, ModelId model, const RouteView& view) const noexcept {
    if (weight_ == Weight::label) return labelled_[node];
    const double slots = view.fleet().slots(node);
    if (weight_ == Weight::slots) return slots;
    const auto curve = view.latency().single(model);
    const double service_us = curve.fixed_us[node.value] + curve.per_work_us[node.value];
    return std::clamp(slots / service_us, least_weight, most_weight);
  }

  Weight weight_;
  std::uint32_t n_nodes_{};
  NodeId next_{base::no_node};  // by what consider() saw
  NodeFacts<double> labelled_;
  std::vector<std::unique_ptr<double[]>> accounts_;  // by model; by node
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_weighted(std::uint64_t /*seed*/, RoutingOptions& options) {
  return std::make_unique<Weighted>(weight_of(options.text("weight", "slots")));
}

}  // namespace infcore::route
