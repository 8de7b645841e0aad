// The node of least cost: time, money, risk and what it holds already, all in microseconds.
#include <infcore/route/routing_policy.hpp>

namespace infcore::route {
namespace {

class SloCost final : public RoutingPolicy {
 public:
  explicit SloCost(const JointWeights& joint) : joint_(joint) {}
  const char* name() const noexcept override { return "slo_cost"; }
  bool binds_on_arrival() const noexcept override { return false; }

  JointWeights joint() const noexcept override { return joint_; }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override { return view.fastest(query); }

 private:
  JointWeights joint_;
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_slo_cost(std::uint64_t /*seed*/, RoutingOptions& options) {
  return std::make_unique<SloCost>(JointWeights{.price_us_per_usd = options.number("joint_price", 5e10, 0.0, 1e15),
                                                .goal_share = options.number("joint_goal_share", 0.03125, 0.0, 1.0),
                                                .tail = options.number("joint_tail", 0.97, 0.0, 1.0),
                                                .by_work = options.number("joint_by_work", 1.0, 0.0, 1.0) > 0.0});
}

}  // namespace infcore::route
