// The edge as long as it will do: nodes whose location is "edge", while they meet the deadline and have fewer than
// `load` requests in flight for each slot. Then everything that is not edge; and if that is no way either, whoever
// there is. Among the nodes of a step slo_cost chooses.
//
// Source: offloading of edge-cloud systems by local capacity, e.g. Y. Mao et al., A Survey on Mobile Edge Computing
//   (IEEE Communications Surveys 19(4), 2017, section III; doi:10.1109/COMST.2017.2745201).
// Differs: one threshold of load and the predicted time against the deadline; no radio, no energy.
// Cost: slo_cost's for each step, three at most, and a word an edge node. A bit a node.
// Tunables: load = 2, 0 to 1000000, and slo_cost's.
// In an engine: binds on arrival, since the joint choice knows no steps; there the load alone decides, for requests are
// bound to nodes before their deadlines count.
#include <infcore/route/narrowing_policy.hpp>
#include <infcore/route/node_facts.hpp>

namespace infcore::route {
namespace {

class EdgeFirst final : public NarrowingPolicy {
 public:
  EdgeFirst(std::uint64_t seed, RoutingOptions& options)
      : NarrowingPolicy(seed, options), load_(options.number("load", 2.0, 0.0, 1e6)) {}
  const char* name() const noexcept override { return "edge_first"; }
  bool binds_on_arrival() const noexcept override { return true; }

  void attach(const Fleet& fleet) override {
    NarrowingPolicy::attach(fleet);
    is_edge_.attach(fleet);
    edge_.attach(fleet);
    cloud_.attach(fleet);
  }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    if (!view.prepare(query, weights())) return base::no_node;  // follow() is to know all who are candidates
    follow(view.fleet());
    Choice choice = of(edge_, query, view);
    if (!choice.found()) choice = of(cloud_, query, view);
    if (!choice.found()) choice = of_all(query, view);
    return take(choice);
  }

  void consider(const RouteQuery& query, RouteView& view) noexcept override {
    follow(view.fleet());
    const auto any = [&](const NodeSet& set) {
      return least(&set, query, view).value < std::numeric_limits<float>::infinity();
    };
    taken_ = any(edge_) ? &edge_ : any(cloud_) ? &cloud_ : nullptr;
  }
  std::string left_out(NodeId node) const override {
    if (taken_ == nullptr || taken_->holds(node)) return {};
    return is_edge_[node] == 0 ? "a node at the edge will do" : "its share of requests in flight at the edge is full";
  }

 protected:
  const NodeSet* taken() const noexcept override { return taken_; }

 private:
  void follow(const Fleet& fleet) noexcept {
    is_edge_.follow([](NodeId, const NodeSpec& spec) { return std::uint8_t{spec.location == "edge"}; });
    edge_.clear();
    cloud_.clear();
    for (NodeId node{0}; node.value < fleet.n_nodes(); ++node.value) {
      const double inflight = fleet.columns().pair(node.value, contracts::FleetColumns::wait_inflight).second;
      if (is_edge_[node] == 0) {
        cloud_.add(node);
      } else if (inflight < load_ * fleet.slots(node)) {
        edge_.add(node);
      }
    }
  }

  double load_;
  NodeFacts<std::uint8_t> is_edge_;
  NodeSet edge_, cloud_;
  const NodeSet* taken_{};  // by what consider() saw; null: all of them are looked at
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_edge_first(std::uint64_t seed, RoutingOptions& options) {
  return std::make_unique<EdgeFirst>(seed, options);
}

}  // namespace infcore::route
