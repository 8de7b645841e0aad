// Two different candidates at random, and of them the one with fewer requests in flight. Nearly as even as asking all
// of them, at the cost of asking two, and without the herd that follows one shared minimum.
//
// Source: M. Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, IEEE TPDS 12(10), 2001, section 1
//   (doi:10.1109/71.963420); as deployed in nginx's `random two least_conn` and Ray Serve's replica choice.
// Differs: without replacement, as those two do it (the paper draws with); counts the node's own figure, so that
// several
//   routers see each other's requests; no weights and no locality.
// Cost: two nodes, O(log nodes) to find them; O(nodes / 64) words where a request asks for more than its model.
// Tunables: the seed. Ties go to the lowest id.
#include <infcore/route/routing_policy.hpp>
#include <infcore/route/two_choices.hpp>

namespace infcore::route {
namespace {

class PowerOfTwo final : public RoutingPolicy {
 public:
  explicit PowerOfTwo(std::uint64_t seed) noexcept : choices_(seed) {}
  const char* name() const noexcept override { return "power_of_two"; }
  bool binds_on_arrival() const noexcept override { return true; }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    if (!view.filter(query)) return base::no_node;
    const auto [low, high] = choices_.draw(view);
    return view.inflight(high) < view.inflight(low) ? high : low;
  }

 private:
  TwoChoices choices_;
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_power_of_two(std::uint64_t seed, RoutingOptions& /*options*/) {
  return std::make_unique<PowerOfTwo>(seed);
}

}  // namespace infcore::route
