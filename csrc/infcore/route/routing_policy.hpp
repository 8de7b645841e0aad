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
};

/// What an engine's joint choice weighs beside the time of finishing. All zero: the first to finish gets it.
struct JointWeights {
  double price_us_per_usd{};  ///< microseconds that a US dollar counts for
  /// Of a token request: what a second counts by which one that runs beside it gets its answer later, beside a second
  /// of its own until its first token.
  double beside{};
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
  /// Once, before everything else, by the policy's owner: room for what is kept per node. The fleet outlives the
  /// policy.
  virtual void attach(const Fleet& /*fleet*/) {}
  /// For policies that learn from outcomes. In an engine: only under a policy that binds on arrival.
  virtual void observe(const RouteOutcome& /*outcome*/) noexcept {}

  RoutingPolicy() = default;
  RoutingPolicy(const RoutingPolicy&) = delete;
  RoutingPolicy& operator=(const RoutingPolicy&) = delete;
};

/// Throws UnknownName for a policy or an option that there is not, InvalidArgument for an option's value. Same name,
/// seed, options and calls: same choices.
[[nodiscard]] std::unique_ptr<RoutingPolicy> make_routing_policy(std::string_view name, std::uint64_t seed,
                                                                 RoutingOptions options = {});
/// Their names, in the order of routing_registry.def.
[[nodiscard]] std::vector<std::string> routing_policies();

}  // namespace infcore::route
