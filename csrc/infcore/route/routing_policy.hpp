#pragma once
#include <infcore/route/route_view.hpp>
#include <infcore/route/routing_options.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace infcore::route {

/// How a request ended on the node that select() gave it. Cancelled ones have no outcome.
struct RouteOutcome {
  NodeId node;
  ModelId model;
  base::TimeNs now_ns;
  double latency_s;  ///< from the choice of the node to the end, >= 0: what a balancer in front of the node measures
  bool ok;
  double confidence{-1.0};  ///< 0 to 1, of the answer, as the caller reported it; negative: it did not
};

/// What an engine's joint choice weighs beside the time of finishing. As it stands: the first to finish gets it.
struct JointWeights {
  double price_us_per_usd{};  ///< microseconds that a US dollar counts for; 0: money is not looked at
  double goal_share{};        ///< of the time that its deadline leaves a request, what money may cost it
  double tail{};              ///< quantile of what requests take anyway, which money may not move them beyond
  bool by_work{};             ///< of those that wait, each device takes those that it has the better speed for
  /// Of a token request: what a second counts by which one that runs beside it gets its answer later, beside a second
  /// of its own until its first token.
  double beside{};
};

/// What a policy adds to one node's cost, so that the least sum is the node that it has drawn, or gives its turn.
struct Nudge {
  NodeId node{base::no_node};  ///< no_node: it adds nothing
  double explore_us{};
};

/// Which node gets a request. `select` only chooses: it changes nothing but the policy's own fixed-size state, and
/// that only where it returns a node. Credit is added by Fleet::reserve, which callers do after it.
class RoutingPolicy {
 public:
  virtual ~RoutingPolicy() = default;
  [[nodiscard]] virtual const char* name() const noexcept = 0;
  /// Whether an engine gives each request its node on arrival (one queue per node, as such balancers are deployed) or
  /// lets it wait with its model until node and batch are chosen together.
  [[nodiscard]] virtual bool binds_on_arrival() const noexcept = 0;
  /// Of a policy that does not bind on arrival.
  [[nodiscard]] virtual JointWeights joint() const noexcept { return {}; }
  /// Whether it looks at the blocks of a prompt: else nobody need find their names.
  [[nodiscard]] virtual bool reads_blocks() const noexcept { return false; }
  /// base::no_node where no node passes the filter.
  [[nodiscard]] virtual NodeId select(const RouteQuery& query, RouteView& view) noexcept = 0;
  /// What it weighs beside time: explain goes by it.
  [[nodiscard]] virtual CostWeights weights() const noexcept { return {}; }
  /// What select() would add, were it called now.
  [[nodiscard]] virtual Nudge nudge(const RouteQuery& /*query*/, RouteView& /*view*/) noexcept { return {}; }
  /// After a select() that returned a node, with the same query: how that node's cost came about.
  [[nodiscard]] virtual CostTerms terms(const RouteQuery& query, RouteView& view, NodeId node) noexcept {
    return view.terms(query, node);
  }
  /// What select() would do with the query now, without doing it: for left_out() of any node that passes the filter.
  virtual void consider(const RouteQuery& /*query*/, RouteView& /*view*/) noexcept {}
  /// Why select() would not look at the node, as a phrase; "": it would.
  [[nodiscard]] virtual std::string left_out(NodeId /*node*/) const { return {}; }
  /// Once, before everything else, by the policy's owner: room for what is kept per node. The fleet outlives the
  /// policy.
  virtual void attach(const Fleet& /*fleet*/) {}
  /// The model that a Router's pick serves in place of the one asked for, before select(); explain() asks, too, so it
  /// changes nothing of what the policy has learned. An engine serves what was asked for.
  virtual ModelId start_at(const RouteQuery& query, RouteView& /*view*/) noexcept { return query.model; }
  /// The model that goes on where `model` was so confident of its answer; base::no_model: it is good enough.
  virtual ModelId next_model(ModelId /*model*/, double /*confidence*/) noexcept { return base::no_model; }
  /// For policies that learn from outcomes. In an engine: only under a policy that binds on arrival.
  virtual void observe(const RouteOutcome& /*outcome*/) noexcept {}
  /// Of a policy that may fail (one in another language): whether select or observe did, since the last rethrow().
  [[nodiscard]] virtual bool failed() const noexcept { return false; }
  /// Throws what it failed of, if it did.
  virtual void rethrow() {}

  RoutingPolicy() = default;
  RoutingPolicy(const RoutingPolicy&) = delete;
  RoutingPolicy& operator=(const RoutingPolicy&) = delete;
};

/// Throws UnknownName for a policy or an option that there is not, InvalidArgument for an option's value. Same name,
/// seed, options and calls: same choices.
[[nodiscard]] std::unique_ptr<RoutingPolicy> make_routing_policy(std::string_view name, std::uint64_t seed,
                                                                 RoutingOptions options = {});
/// Their names, in the order of routing_registry.def: those compiled in, without what foreign_policy.hpp registers.
[[nodiscard]] std::vector<std::string> routing_policies();

}  // namespace infcore::route
