// The node that is predicted to answer first: waiting (signalled, plus our own reserves) + service (the pair's latency
// curve) + load (a busy device or link) + network. Unlike nodes are what it is for.
//
// Source: list scheduling by earliest finish time, as in HEFT's processor selection (H. Topcuoglu, S. Hariri, M.-Y. Wu,
//   IEEE TPDS 13(3), 2002, section 4.1, doi:10.1109/71.993206).
// Differs: finish times are predicted from curves learned online; one request at a time, no task graph.
// Cost: one pass of float32 columns, O(nodes). Tunables: none. Ties go to the lowest id.
#include <infcore/route/routing_policy.hpp>

namespace infcore::route {
namespace {

class FastestFinish final : public RoutingPolicy {
 public:
  const char* name() const noexcept override { return "fastest_finish"; }
  bool binds_on_arrival() const noexcept override { return false; }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override { return view.fastest(query); }
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_fastest_finish(std::uint64_t /*seed*/, RoutingOptions& /*options*/) {
  return std::make_unique<FastestFinish>();
}

}  // namespace infcore::route
