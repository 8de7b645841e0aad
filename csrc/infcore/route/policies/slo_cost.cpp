// The node of least cost: time, money, risk and what it holds already, all in microseconds.
#include <infcore/route/routing_policy.hpp>

namespace infcore::route {
namespace {

class SloCost final : public RoutingPolicy {
 public:
  explicit SloCost(double beside) : joint_{.beside = beside} {}
  const char* name() const noexcept override { return "slo_cost"; }
  bool binds_on_arrival() const noexcept override { return false; }
  JointWeights joint() const noexcept override { return joint_; }
  bool reads_blocks() const noexcept override { return true; }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override { return view.fastest(query); }

 private:
  JointWeights joint_;
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_slo_cost(std::uint64_t /*seed*/, RoutingOptions& options) {
  return std::make_unique<SloCost>(options.number("joint_beside", 0.3, 0.0, 1e3));
}

}  // namespace infcore::route
