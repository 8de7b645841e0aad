// The nearest nodes first: where the data is and in the caller's zone, where the data is, in the zone, anywhere. A
// level is taken if its best node costs at most `spill` times what the best of all costs; which node of it, slo_cost
// says.
//
// Source: locality levels and spill over as in Envoy's zone-aware and priority routing (its documentation, "Zone aware
//   routing", "Priority levels"); data before zone as in M. Zaharia et al., Delay Scheduling (EuroSys 2010, section 3;
//   doi:10.1145/1755913.1755940).
// Differs: spills by predicted cost (queue, service, network), not by the share of healthy hosts, and does not wait: a
//   node that must be waited for costs as much as the wait.
// Cost: slo_cost's, once for each level that is looked at and once for all. A bit a node and level.
// Tunables: zone = "" and data = "": the caller's zone, and the value of the nodes' label `data` that its data has; ""
//   is no preference. spill = 2, 1 to 1000000. And slo_cost's.
// In an engine: binds on arrival, since the joint choice knows no levels.
#include <infcore/route/narrowing_policy.hpp>
#include <infcore/route/node_facts.hpp>

#include <array>
#include <limits>

namespace infcore::route {
namespace {

/// What a node has of what the caller wants; as a number, the nearer the greater.
struct Nearness {
  bool zone{}, data{};
  [[nodiscard]] std::size_t level() const noexcept { return (data ? 2u : 0u) + (zone ? 1u : 0u); }
};

class Locality final : public NarrowingPolicy {
 public:
  Locality(std::uint64_t seed, RoutingOptions& options)
      : NarrowingPolicy(seed, options),
        zone_(options.text("zone", "")),
        data_(options.text("data", "")),
        spill_(options.number("spill", 2.0, 1.0, 1e6)) {}
  const char* name() const noexcept override { return "locality"; }
  bool binds_on_arrival() const noexcept override { return true; }

  void attach(const Fleet& fleet) override {
    NarrowingPolicy::attach(fleet);
    near_.attach(fleet);
    for (NodeSet& level : levels_) level.attach(fleet);
  }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    consider(query, view);
    return take(taken_ == 0 ? of_all(query, view) : of(levels_[taken_], query, view));
  }

  void consider(const RouteQuery& query, RouteView& view) noexcept override {
    taken_ = 0;
    const Least best = least(nullptr, query, view);
    if (best.value == std::numeric_limits<float>::infinity() || (zone_.empty() && data_.empty())) return;
    follow(view.fleet());
    const double most_us = static_cast<double>(best.value) * spill_;
    for (std::size_t level = levels_.size() - 1; level > near_[NodeId{best.node}].level() && taken_ == 0; --level) {
      if (static_cast<double>(least(&levels_[level], query, view).value) <= most_us) taken_ = level;
    }
  }
  std::string left_out(NodeId node) const override {
    if (taken_ == 0 || levels_[taken_].holds(node)) return {};
    if (near_[node].level() < taken_) return "a nearer node costs little enough";
    return "nearer, but the best of its level costs more than spill allows";
  }

 protected:
  const NodeSet* taken() const noexcept override { return taken_ == 0 ? nullptr : &levels_[taken_]; }

 private:
  void follow(const Fleet& fleet) noexcept {
    const bool any = near_.follow([this](NodeId, const NodeSpec& spec) {
      return Nearness{.zone = !zone_.empty() && spec.zone == zone_,
                      .data = !data_.empty() && carries(spec, "data", data_)};
    });
    if (!any) return;
    for (NodeSet& level : levels_) level.clear();
    for (NodeId node{0}; node.value < fleet.n_nodes(); ++node.value) levels_[near_[node].level()].add(node);
  }

  std::string zone_, data_;
  double spill_;
  NodeFacts<Nearness> near_;
  std::array<NodeSet, 4> levels_;
  std::size_t taken_{};  // by what consider() saw; 0: all of them are looked at
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_locality(std::uint64_t seed, RoutingOptions& options) {
  return std::make_unique<Locality>(seed, options);
}

}  // namespace infcore::route
