// The node with the fewest requests in flight: what it said itself, plus what we sent and minus what ended since.
// Needs no model of latency; blind to unlike nodes and to the size of requests.
//
// Source: folklore ("least connections"); as in nginx's least_conn without weights.
// Differs: counts the node's own figure, so that several routers see each other's requests.
// Cost: O(candidates). Tunables: none. Ties go to the lowest id.
#include <infcore/route/routing_policy.hpp>

namespace infcore::route {
namespace {

class LeastOutstanding final : public RoutingPolicy {
 public:
  const char* name() const noexcept override { return "least_outstanding"; }
  bool binds_on_arrival() const noexcept override { return true; }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    if (!view.filter(query)) return base::no_node;
    NodeId best = view.next_candidate(0);
    if (best == base::no_node) return best;
    for (NodeId node = best; node != base::no_node; node = view.next_candidate(node.value + 1))
      if (view.inflight(node) < view.inflight(best)) best = node;
    return best;
  }
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_least_outstanding(std::uint64_t /*seed*/) {
  return std::make_unique<LeastOutstanding>();
}

}  // namespace infcore::route
