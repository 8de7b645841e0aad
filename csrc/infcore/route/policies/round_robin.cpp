// Each node in turn, a turn for each model; a node that is no candidate is stepped over.
// The baseline that every balancer ships; the cursor moves only when a node was found.
//
// Source: folklore; as in nginx's default upstream method without weights.
// Differs: one cursor per model, so that two models sent alternately do not each end on half of the nodes.
// Cost: O(nodes / 64) words. Tunables: none.
#include <infcore/route/routing_policy.hpp>

#include <array>

namespace infcore::route {
namespace {

class RoundRobin final : public RoutingPolicy {
 public:
  const char* name() const noexcept override { return "round_robin"; }
  bool binds_on_arrival() const noexcept override { return true; }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    if (!view.filter(query)) return base::no_node;
    std::uint32_t& cursor = cursors_[query.model.value % cursors_.size()];
    NodeId node = view.next_candidate(cursor);
    if (node == base::no_node) node = view.next_candidate(0);
    if (node != base::no_node) cursor = node.value + 1;
    return node;
  }

 private:
  std::array<std::uint32_t, Fleet::models_max> cursors_{};  // the id after the last choice
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_round_robin(std::uint64_t /*seed*/, RoutingOptions& /*options*/) {
  return std::make_unique<RoundRobin>();
}

}  // namespace infcore::route
