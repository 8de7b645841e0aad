// The node with the fewest requests in flight: what it said itself, plus what we sent and minus what ended since.
// Needs no model of latency; blind to unlike nodes and to the size of requests.
//
// Source: folklore ("least connections"); as in nginx's least_conn without weights.
// Differs: counts the node's own figure, so that several routers see each other's requests.
// Cost: the 64 nodes of each word where something changed, and one figure a word of 64; one pass of a float32 column,
// O(nodes), where a request asks for more than its model. Tunables: none. Ties go to the lowest id.
#include <infcore/route/routing_policy.hpp>

namespace infcore::route {
namespace {

class LeastOutstanding final : public RoutingPolicy {
 public:
  const char* name() const noexcept override { return "least_outstanding"; }
  bool binds_on_arrival() const noexcept override { return true; }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    return view.filter(query) ? view.least_inflight() : base::no_node;
  }
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_least_outstanding(std::uint64_t /*seed*/, RoutingOptions& /*options*/) {
  return std::make_unique<LeastOutstanding>();
}

}  // namespace infcore::route
