// A part of each node is kept for tier 0: it may go anywhere, less urgent requests only to nodes that are below the
// rest. Among the nodes that a request may go to, slo_cost chooses.
//
// Source: trunk reservation of circuit-switched networks (F. P. Kelly, Loss Networks, Annals of Applied Probability
//   1(3), 1991, section 4; doi:10.1214/aoap/1177005872).
// Differs: the part is of each node's own bound of pending requests, or of its slots where it has none; one line for
// all
//   tiers beyond 0. What finds every node at the line finds no node: a Router's caller keeps it or refuses it, an
//   engine lets it wait until one falls below.
// Cost: slo_cost's, and a word a node for tiers beyond 0. Tunables: reserve = .25, 0 to .99, and slo_cost's.
// In an engine: binds on arrival, since the joint choice knows no line.
#include <infcore/route/narrowing_policy.hpp>

#include <limits>

namespace infcore::route {
namespace {

class Priority final : public NarrowingPolicy {
 public:
  Priority(std::uint64_t seed, RoutingOptions& options)
      : NarrowingPolicy(seed, options), open_share_(1.0 - options.number("reserve", 0.25, 0.0, 0.99)) {}
  const char* name() const noexcept override { return "priority"; }
  bool binds_on_arrival() const noexcept override { return true; }

  void attach(const Fleet& fleet) override {
    NarrowingPolicy::attach(fleet);
    open_.attach(fleet);
  }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    if (query.tier == 0) return take(of_all(query, view));
    follow(view);
    return take(of(open_, query, view));
  }

  void consider(const RouteQuery& query, RouteView& view) noexcept override {
    is_urgent_ = query.tier == 0;
    if (!is_urgent_) follow(view);
  }
  std::string left_out(NodeId node) const override {
    return is_urgent_ || open_.holds(node) ? "" : "what it has left is kept for tier 0";
  }

 protected:
  const NodeSet* taken() const noexcept override { return is_urgent_ ? nullptr : &open_; }

 private:
  void follow(RouteView& view) noexcept {
    open_.clear();
    for (NodeId node{0}; node.value < view.fleet().n_nodes(); ++node.value)
      if (view.inflight(node) < open_share_ * bound_of(view.fleet(), node)) open_.add(node);
  }

  static double bound_of(const Fleet& fleet, NodeId node) noexcept {
    const float pending_max = fleet.columns().pair(node.value, contracts::FleetColumns::others_bound).second;
    if (pending_max < std::numeric_limits<float>::infinity()) return pending_max;
    return fleet.slots(node);
  }

  double open_share_;  // of a node, to less urgent requests
  NodeSet open_;
  bool is_urgent_{};  // what consider() saw
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_priority(std::uint64_t seed, RoutingOptions& options) {
  return std::make_unique<Priority>(seed, options);
}

}  // namespace infcore::route
