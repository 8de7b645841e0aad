#pragma once
#include <infcore/route/route_view.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace infcore::route {

/// Which node gets a request. `select` only chooses: it changes nothing but the policy's own fixed-size state, and
/// that only where it returns a node. Credit is added by Fleet::reserve, which callers do after it.
class RoutingPolicy {
 public:
  virtual ~RoutingPolicy() = default;
  [[nodiscard]] virtual const char* name() const noexcept = 0;
  /// Whether an engine gives each request its node on arrival (one queue per node, as such balancers are deployed) or
  /// lets it wait with its model until node and batch are chosen together.
  [[nodiscard]] virtual bool binds_on_arrival() const noexcept = 0;
  /// base::no_node where no node passes the filter.
  [[nodiscard]] virtual NodeId select(const RouteQuery& query, RouteView& view) noexcept = 0;

  RoutingPolicy() = default;
  RoutingPolicy(const RoutingPolicy&) = delete;
  RoutingPolicy& operator=(const RoutingPolicy&) = delete;
};

/// Throws UnknownName. Same name, seed and calls: same choices.
[[nodiscard]] std::unique_ptr<RoutingPolicy> make_routing_policy(std::string_view name, std::uint64_t seed);
/// Their names, in the order of routing_registry.def.
[[nodiscard]] std::vector<std::string> routing_policies();

}  // namespace infcore::route
