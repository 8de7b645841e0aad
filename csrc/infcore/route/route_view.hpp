#pragma once
#include <infcore/contracts/latency_table.hpp>
#include <infcore/route/fleet.hpp>
#include <infcore/route/prefix_index.hpp>
#include <infcore/route/route_query.hpp>
#include <infcore/route/score.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace infcore::route {

/// Why a node is no candidate.
enum class Filtered : std::uint8_t { no, not_up, no_model, no_label, late, full };
inline constexpr std::size_t n_filtered = 6;

/// What a policy weighs beside time. All zero: time alone.
struct CostWeights {
  double price_us_per_usd{};  ///< microseconds that a US dollar counts for
  double risk{};              ///< times the time until the deadline: what missing it costs
  double block_size{};        ///< work that one block of a prompt stands for; 0: prefixes are not looked at
  bool loads{};               ///< nodes that would have to load the model first are candidates, too
  [[nodiscard]] bool any() const noexcept { return price_us_per_usd > 0.0 || risk > 0.0; }
};

/// One router's view of a fleet: a private copy of the columns, brought up to date where they changed, the latency
/// curves, and the candidates of the request at hand. Costs a load a block of 64 nodes, and those of what changed, when
/// something first reads the copy: who only asks which nodes there are (round_robin) does not pay for it. Who are the
/// candidates of a model is kept as long as nothing of that changes in the fleet.
///
/// Each router and each engine has its own; one thread at a time. The fleet and the table outlive it.
class RouteView {
 public:
  RouteView(const Fleet& fleet, const contracts::LatencyTable& latency);
  RouteView(const RouteView&) = delete;
  RouteView& operator=(const RouteView&) = delete;
  /// What nodes hold of prompts; it outlives the view. Null, as at first: nobody knows.
  void use_prefix(const PrefixIndex* index) noexcept { prefix_ = index; }
  /// From now on only who holds a model is a candidate, whatever may be loaded: nobody here could have it loaded.
  void never_loads() noexcept { may_load_ = false; }
  /// From now on nodes are candidates not for holding a model but by these bits, a row of 64 a word for each model: who
  /// may hold it, where somebody sees to it that it is loaded there. Kept by the caller.
  void send_to(const std::uint64_t* hosts) noexcept { hosts_ = hosts; }

  /// Candidates: up, holding the model, carrying the labels, not full, and, where there is a deadline, able to meet it.
  /// False where there is none.
  bool filter(const RouteQuery& query) noexcept;
  /// The candidate of least cost, the lowest id among equals; base::no_node without candidates.
  [[nodiscard]] NodeId fastest(const RouteQuery& query) noexcept;

  /// After filter(): the first candidate with an id >= `from`; base::no_node where there is none.
  [[nodiscard]] NodeId next_candidate(std::uint32_t from) const noexcept;
  /// After filter(): how many candidates there are. O(1), or once O(nodes / 64) where the request asks for more than
  /// its model.
  [[nodiscard]] std::uint32_t n_candidates() const noexcept {
    if (!candidates_->counted) candidates_->count(n_nodes_);
    return candidates_->n;
  }
  /// After filter(): the candidate with `k` candidates of lower id. Precondition: k < n_candidates(). O(log nodes).
  [[nodiscard]] NodeId candidate(std::uint32_t k) const noexcept;
  /// After filter(): requests in flight on a node.
  [[nodiscard]] float inflight(NodeId node) const noexcept {  // for who asks of two nodes: no copy of the others
    return fleet_->columns().pair(node.value, contracts::FleetColumns::wait_inflight).second;
  }
  /// After filter(): the candidate with the fewest requests in flight, the lowest id among equals. O(nodes / 64), where
  /// the request asks for no more than its model.
  [[nodiscard]] NodeId least_inflight() noexcept;

  /// Makes `query` the one that the functions below are about, and finds its candidates, late ones still among them.
  /// False where there is none.
  bool prepare(const RouteQuery& query, const CostWeights& weights) noexcept;
  /// The candidate of least cost that is not late, the lowest id among equals; value +inf where there is none.
  [[nodiscard]] Least least_cost() const noexcept;
  /// The same, and the next two may follow.
  [[nodiscard]] Least least_cost_noting() noexcept;
  /// The same of those that are not in the set, 64 nodes a word.
  [[nodiscard]] Least least_noted_outside(const std::uint64_t* set) noexcept;
  /// Takes from the candidates who is late, or whose standing cost is above `standing_us_max`.
  void keep_noted(float standing_us_max) noexcept;
  /// keep_noted() without least_cost_noting() before it.
  void keep_within(float standing_us_max) noexcept;
  /// cost_us of each candidate that is not late, by id, +inf for other nodes. Valid until the next call.
  [[nodiscard]] std::span<const float> costs() noexcept;
  [[nodiscard]] NodeScore score(NodeId node) const noexcept;
  /// Leading blocks of the prompt that the node holds, by the credit of where it holds them.
  [[nodiscard]] float held_blocks(NodeId node) const noexcept {
    return (scored_.parts & ScoreParts::prefix) != 0 ? held_blocks_[node.value] : 0.0f;
  }
  /// How the node's cost comes about, whether it is a candidate or not.
  [[nodiscard]] CostTerms terms_of(NodeId node) const noexcept;
  [[nodiscard]] Filtered why_not(NodeId node) const noexcept;

  /// What the node costs now in time, whether it is a candidate or not: for who asks of one node.
  [[nodiscard]] CostTerms terms(const RouteQuery& query, NodeId node) const noexcept;
  [[nodiscard]] Filtered why_not(const RouteQuery& query, NodeId node) noexcept {
    prepare(query, {});
    return why_not(node);
  }

  /// Whether any node ever said something of itself: figures that are as old as their signal.
  [[nodiscard]] bool signalled() const noexcept {
    return fleet_->columns().header().signalled.load(std::memory_order_relaxed) != 0;  // relaxed: nothing hangs on it
  }
  [[nodiscard]] const Fleet& fleet() const noexcept { return *fleet_; }
  [[nodiscard]] const contracts::LatencyTable& latency() const noexcept { return *latency_; }

 private:
  /// What loading one model costs each node, as of a count of the fleet's changes.
  struct Loads {
    std::uint64_t residency{};
    bool any{};
    std::vector<float> load_us;
    std::vector<std::uint64_t> able;        // nodes that hold the model or could, 64 a word
    std::vector<Fleet::Loading> begun;      // loads that are under way
    base::TimeNs until_ns{base::never_ns};  // when one of them counts as given up
  };
  /// A set of nodes, 64 a word, and how many of them are in lower words.
  struct Candidates {
    explicit Candidates(std::size_t words_max) : words(words_max), before(words_max) {}
    void count(std::uint32_t n_nodes) noexcept;
    std::uint64_t residency{};  // of a model's own: as of which of the fleet's counts
    bool counted{};
    std::uint32_t n{}, n_words{};  // of them and in how many words, if counted
    std::vector<std::uint64_t> words;
    std::vector<std::uint32_t> before;
  };
  /// Of each 64 nodes the one with the fewest requests in flight, of a model's own candidates.
  struct LeastInflight {
    const Candidates* of{};
    std::uint64_t residency{};
    std::vector<std::uint64_t> stale;  // a bit for each 64 nodes
    std::vector<std::uint64_t> all;    // as many bits, set: a mask
    std::vector<float> least;
    std::vector<std::uint32_t> node;
  };
  bool find_candidates(const RouteQuery& query, bool loads) noexcept;
  Candidates* candidates_of(ModelId model) noexcept;
  bool collect(const RouteQuery& query, Candidates& into) const noexcept;
  [[nodiscard]] bool any_left() const noexcept;
  std::uint64_t* narrow() noexcept;
  Loads* loads_of(ModelId model, base::TimeNs now_ns) noexcept;
  void see_begun(Loads& loads, ModelId model, base::TimeNs now_ns) const;
  static void count_on_begun(Loads& loads, base::TimeNs now_ns) noexcept;
  void copy_changed() noexcept;
  void copy_block(std::uint32_t index) noexcept;
  void copy_latest(const contracts::FleetColumns::Block& block, std::uint32_t index, std::uint32_t row) noexcept;
  void copy_prices() noexcept;
  void use_columns(const RouteQuery& query) noexcept;
  [[nodiscard]] static CostTerms terms_from(const NodeScore& score, const ScoreQuery& query) noexcept;
  [[nodiscard]] NodeFigures figures(NodeId node) const noexcept;

  const Fleet* fleet_;
  const contracts::LatencyTable* latency_;
  const PrefixIndex* prefix_{};
  bool may_load_{true};
  const std::uint64_t* hosts_{};
  std::vector<std::unique_ptr<Loads>> loads_;       // by model, made when a query first asks
  std::vector<std::unique_ptr<Candidates>> known_;  // by model, the same
  Loads* loads_in_use_{};
  std::uint32_t n_nodes_{};
  std::uint64_t priced_version_{};
  RouteQuery query_;  // of what was prepared: its model and labels
  ScoreQuery scored_;
  ScoreColumns columns_{};
  std::vector<std::uint64_t> seen_;  // change count of each block, as of our copy
  Candidates narrowed_;              // where more is asked for than the model
  Candidates* candidates_{&narrowed_};
  LeastInflight fewest_;
  std::vector<std::uint64_t> outside_;
  std::vector<float> wait_us_, inflight_, others_ahead_, pending_max_, pressure_, network_us_, price_per_hour_,
      held_blocks_, cost_us_, standing_us_;
};

}  // namespace infcore::route
