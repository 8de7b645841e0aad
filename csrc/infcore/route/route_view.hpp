#pragma once
#include <infcore/contracts/latency_table.hpp>
#include <infcore/route/fleet.hpp>
#include <infcore/route/route_query.hpp>
#include <infcore/route/score.hpp>

#include <cstdint>
#include <vector>

namespace infcore::route {

/// Why a node is no candidate.
enum class Filtered : std::uint8_t { no, not_up, no_model, no_label, late, full };

/// One router's view of a fleet: a private copy of the columns, brought up to date where they changed, the latency
/// curves, and the candidates of the request at hand. Costs 16 loads a changed block of 16 nodes, when something first
/// reads the copy: who only asks which nodes there are (round_robin) does not pay for it.
///
/// Each router and each engine has its own; one thread at a time. The fleet and the table outlive it.
class RouteView {
 public:
  RouteView(const Fleet& fleet, const contracts::LatencyTable& latency);

  /// Candidates: up, holding the model, carrying the labels, and, where there is a deadline, able to meet it.
  /// False where there is none.
  bool filter(const RouteQuery& query) noexcept;
  /// The candidate of least cost, the lowest id among equals; base::no_node without candidates.
  [[nodiscard]] NodeId fastest(const RouteQuery& query) noexcept;

  /// After filter(): the first candidate with an id >= `from`; base::no_node where there is none.
  [[nodiscard]] NodeId next_candidate(std::uint32_t from) const noexcept;
  /// After filter(): how many candidates there are; O(nodes / 64).
  [[nodiscard]] std::uint32_t n_candidates() const noexcept;
  /// After filter(): the candidate with `k` candidates of lower id. Precondition: k < n_candidates(). O(nodes / 64).
  [[nodiscard]] NodeId candidate(std::uint32_t k) const noexcept;
  /// After filter(): requests in flight on a node.
  [[nodiscard]] float inflight(NodeId node) const noexcept {  // for who asks of two nodes: no copy of the others
    return fleet_->columns().pair(node.value, contracts::FleetColumns::wait_inflight).second;
  }
  /// After filter(): the candidate with the fewest requests in flight, the lowest id among equals.
  [[nodiscard]] NodeId least_inflight() noexcept;

  /// What the node costs now, whether it is a candidate or not.
  [[nodiscard]] CostTerms terms(const RouteQuery& query, NodeId node) noexcept;
  [[nodiscard]] Filtered why_not(const RouteQuery& query, NodeId node) noexcept;

  [[nodiscard]] const Fleet& fleet() const noexcept { return *fleet_; }
  [[nodiscard]] const contracts::LatencyTable& latency() const noexcept { return *latency_; }

 private:
  bool find_candidates(const RouteQuery& query) noexcept;
  void copy_changed() noexcept;
  [[nodiscard]] NodeId first_at(const Least& least) const noexcept;
  Least score_all(const RouteQuery& query) noexcept;
  [[nodiscard]] ScoreColumns columns_of(ModelId model) const noexcept;

  const Fleet* fleet_;
  const contracts::LatencyTable* latency_;
  std::uint32_t n_nodes_{};
  std::vector<std::uint32_t> seen_;  // change count of each block, as of our copy
  std::vector<std::uint64_t> candidates_;
  std::vector<float> wait_us_, inflight_, others_ahead_, pending_max_, pressure_, network_us_, cost_us_;
};

}  // namespace infcore::route
