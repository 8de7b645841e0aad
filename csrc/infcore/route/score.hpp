#pragma once
#include <cstdint>

namespace infcore::route {

/// Columns that are scored together are padded to so many nodes.
inline constexpr std::uint32_t score_lanes = 32;

/// One figure per node.
struct ScoreColumns {
  const float* wait_us;
  const float* others_ahead;
  const float* pressure;
  const float* network_us;
  const float* fixed_us;
  const float* per_work_us;
  const float* tail;
};

/// One node's row of them.
struct NodeFigures {
  float wait_us, others_ahead, pressure, network_us, fixed_us, per_work_us, tail;
};

struct ScoreQuery {
  float work;
  float budget_us;  ///< until the deadline; +inf without one
};

/// The arithmetic of one node. Everything that compares or explains nodes goes through here, in float32 and in this
/// order, so that pick and explain agree to the bit on every ISA.
struct NodeScore {
  float wait_us;
  float service_us;
  float pressure_us;
  float network_us;
  float cost_us;
  float upper_us;

  [[nodiscard]] static inline NodeScore of(const NodeFigures& node, float work) noexcept {
    const float service = node.fixed_us + node.per_work_us * work;
    const float wait = node.wait_us + node.others_ahead * service;
    const float pressure = service * node.pressure;
    const float cost = ((wait + service) + pressure) + node.network_us;
    return {wait, service, pressure, node.network_us, cost, cost + service * node.tail};
  }
};

struct Least {
  float value;         ///< +inf where no node passes
  std::uint32_t from;  ///< the first of the score_lanes nodes that hold it first
};

/// cost_us[i] of every node in the mask that is not late, +inf for the others; returns the least of them.
/// `mask`: 64 nodes a word.
Least score(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask, std::uint32_t n_nodes,
            float* cost_us) noexcept;

/// The same for a column as it is: passing[i] = column[i] in the mask, +inf elsewhere.
Least least_of(const float* column, const std::uint64_t* mask, std::uint32_t n_nodes, float* passing) noexcept;

}  // namespace infcore::route
