// Requests of one session go to one node, as long as it is there and not much fuller than its share. Each session ranks
// all nodes by a hash of both; it goes to the first in its order that has room, so that what a node that leaves (or is
// full) had is spread over all others, and nothing else moves.
//
// Source: bounded loads from V. Mirrokni, M. Thorup, M. Zadimoghaddam, Consistent Hashing with Bounded Loads (SODA
//   2018, section 1; doi:10.1137/1.9781611975031.39): nobody holds more than `bound` times the mean. The order from
//   D. G. Thaler, C. V. Ravishankar, Using Name-Based Mappings to Increase Hit Rates (IEEE/ACM ToN 6(1), 1998,
//   doi:10.1109/90.663936), weighted as in C. Schindelhauer, G. Schomaker, Weighted Distributed Hash Tables (SPAA 2005,
//   the logarithmic method, doi:10.1145/1073970.1074008).
// Differs: no ring. A ring hands all of a node's sessions to its neighbours and splits evenly only with hundreds of
//   points a node, which a change of members sorts anew; this needs neither points nor memory, and the candidates are
//   walked anyway. Weights are slots, and a node's share of the bound goes by them too. Names are hashed, not ids: the
//   same sessions go to the same names in every process. The load is requests in flight, the node's own figure
//   included. A request without a session belongs nowhere: it goes to the fewest requests in flight.
// Cost: O(candidates), a multiplication chain each; a logarithm each where slots differ. 16 bytes a node.
// Tunables: bound = 1.25, 1 to 1000. Ties go to the lowest id. In an engine: binds on arrival.
#include <infcore/base/exp.hpp>
#include <infcore/route/node_facts.hpp>
#include <infcore/route/routing_policy.hpp>

namespace infcore::route {
namespace {

/// SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014): one-to-one, every bit moves about half of the others.
constexpr std::uint64_t mixed(std::uint64_t z) noexcept {
  z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9u;
  z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EBu;
  return z ^ (z >> 31);
}

/// FNV-1a, 64 bits (G. Fowler, L. C. Noll, K.-P. Vo), then mixed: its low bits alone depend little on the last letter.
std::uint64_t hash_of(const std::string& name) noexcept {
  std::uint64_t hash = 0xCBF2'9CE4'8422'2325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x0000'0100'0000'01B3u;
  return mixed(hash);
}

/// Of a session on a node: -log(uniform) / slots, exponential, so that each node comes first by its share of slots.
double rank_of(std::uint64_t hash, double slots) noexcept {
  return -base::log((static_cast<double>(hash >> 11) + 0.5) * 0x1p-53) / slots;
}

class ConsistentHash final : public RoutingPolicy {
 public:
  explicit ConsistentHash(double bound) noexcept : bound_(bound) {}
  const char* name() const noexcept override { return "consistent_hash"; }
  bool binds_on_arrival() const noexcept override { return true; }
  void attach(const Fleet& fleet) override { names_.attach(fleet); }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    if (!view.filter(query)) return base::no_node;
    if (query.session == 0) return view.least_inflight();
    names_.follow([](NodeId, const NodeSpec& spec) { return hash_of(spec.name); });
    const Totals totals = totals_of(view);
    const std::uint64_t session = mixed(query.session);
    NodeId best = base::no_node;
    std::uint64_t best_hash = 0;
    double best_rank = 0.0;
    for (NodeId node = view.next_candidate(0); node != base::no_node; node = view.next_candidate(node.value + 1)) {
      const double slots = view.fleet().slots(node);
      // Some node is below its part of `bound * (all + 1)`, since the parts come to more than all have.
      if (!(view.inflight(node) < bound_ * (totals.inflight + 1.0) * slots / totals.slots)) continue;
      const std::uint64_t hash = mixed(names_[node] ^ session);
      if (totals.alike) {  // the rank falls with the hash: no need of the logarithm
        if (best == base::no_node || hash > best_hash) best = node, best_hash = hash;
      } else {
        const double rank = rank_of(hash, slots);
        if (best == base::no_node || rank < best_rank) best = node, best_rank = rank;
      }
    }
    return best == base::no_node ? view.least_inflight() : best;  // rounding alone could leave none
  }

  void consider(const RouteQuery& query, RouteView& view) noexcept override {
    chosen_ = query.session == 0 ? base::no_node : select(query, view);
  }
  std::string left_out(NodeId node) const override {
    return chosen_ == base::no_node || node == chosen_ ? "" : "another node comes first for the session, and has room";
  }

 private:
  struct Totals {
    double inflight{}, slots{};
    bool alike{true};  ///< all have the same number of slots
  };
  static Totals totals_of(const RouteView& view) noexcept {
    Totals totals;
    const std::uint32_t first = view.fleet().slots(view.next_candidate(0));
    for (NodeId node = view.next_candidate(0); node != base::no_node; node = view.next_candidate(node.value + 1)) {
      const std::uint32_t slots = view.fleet().slots(node);
      totals.inflight += view.inflight(node);
      totals.slots += slots;
      totals.alike = totals.alike && slots == first;
    }
    return totals;
  }

  double bound_;
  NodeId chosen_{base::no_node};  // by what consider() saw
  NodeFacts<std::uint64_t> names_;
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_consistent_hash(std::uint64_t /*seed*/, RoutingOptions& options) {
  return std::make_unique<ConsistentHash>(options.number("bound", 1.25, 1.0, 1000.0));
}

}  // namespace infcore::route
