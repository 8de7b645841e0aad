// To the node that holds the longest part of the prompt already, unless it is that much fuller than the emptiest; then
// to the next longest, and where nobody holds enough of it to the emptiest. So a prefix that many ask for spreads to as
// many nodes as it needs.
//
// Source: the cache-aware policy of SGLang's router (L. Zheng et al., SGLang, NeurIPS 2024, section 3; its options
//   cache_threshold, balance_abs_threshold and balance_rel_threshold as its documentation has them).
// Differs: one index of what nodes say they hold (or were sent), not a tree of texts per worker; who is too full is
// asked
//   of each node instead of the whole fleet, so that one hot node does not switch affinity off for all. Fullness is
//   requests in flight for each slot, the node's own figure included.
// Cost: a match in the index, O(blocks + nodes / 64), and two walks over the candidates.
// Tunables: min_match = .3, the share of the prompt's blocks below which the emptiest node is chosen; gap = 2 requests
// a
//   slot and gap_ratio = 1.5: too full is more than both gap above and gap_ratio times the emptiest; block_size = 16,
//   the work that a block stands for. Ties: emptier, then the lowest id. In an engine: binds on arrival.
#include <infcore/route/routing_policy.hpp>

#include <algorithm>
#include <limits>

namespace infcore::route {
namespace {

struct Options {
  double min_match, gap, gap_ratio, block_size;
};

class PrefixAware final : public RoutingPolicy {
 public:
  explicit PrefixAware(const Options& options) noexcept : options_(options) {}
  const char* name() const noexcept override { return "prefix_aware"; }
  bool binds_on_arrival() const noexcept override { return true; }
  bool reads_blocks() const noexcept override { return true; }
  CostWeights weights() const noexcept override { return {.block_size = options_.block_size}; }
  CostTerms terms(const RouteQuery& /*query*/, RouteView& view, NodeId node) noexcept override {
    return view.terms_of(node);
  }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    if (!view.prepare(query, weights())) return base::no_node;
    view.keep_within(std::numeric_limits<float>::infinity());
    NodeId emptiest = base::no_node;
    double least = std::numeric_limits<double>::infinity();
    for (NodeId node = view.next_candidate(0); node != base::no_node; node = view.next_candidate(node.value + 1))
      if (const double load = load_of(view, node); load < least) emptiest = node, least = load;
    if (query.blocks.empty() || emptiest == base::no_node) return emptiest;
    const double most = std::max(least + options_.gap, least * options_.gap_ratio);
    NodeId best = emptiest;
    double best_load = least;
    for (NodeId node = view.next_candidate(0); node != base::no_node; node = view.next_candidate(node.value + 1)) {
      const double load = load_of(view, node);
      if (load > most) continue;
      const float held = view.held_blocks(node), best_held = view.held_blocks(best);
      if (held > best_held || (held == best_held && load < best_load)) best = node, best_load = load;
    }
    const double enough = options_.min_match * static_cast<double>(query.blocks.size());
    return view.held_blocks(best) < enough ? emptiest : best;
  }

  void consider(const RouteQuery& query, RouteView& view) noexcept override { chosen_ = select(query, view); }
  std::string left_out(NodeId node) const override {
    return chosen_ == base::no_node || node == chosen_ ? "" : "another node holds more of the prompt, or is emptier";
  }

 private:
  static double load_of(const RouteView& view, NodeId node) noexcept {
    return view.inflight(node) / static_cast<double>(view.fleet().slots(node));
  }

  Options options_;
  NodeId chosen_{base::no_node};  // by what consider() saw
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_prefix_aware(std::uint64_t /*seed*/, RoutingOptions& options) {
  return std::make_unique<PrefixAware>(Options{.min_match = options.number("min_match", 0.3, 0.0, 1.0),
                                               .gap = options.number("gap", 2.0, 0.0, 1e6),
                                               .gap_ratio = options.number("gap_ratio", 1.5, 1.0, 1e6),
                                               .block_size = options.number("block_size", 16.0, 1e-6, 1e6)});
}

}  // namespace infcore::route
