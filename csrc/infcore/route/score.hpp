#pragma once
#include <cstdint>

namespace infcore::route {

/// One figure per node, padded to 16 nodes.
struct ScoreColumns {
  const float* wait_us;
  const float* others_ahead;
  const float* pressure;
  const float* network_us;
  const float* fixed_us;
  const float* per_work_us;
  const float* tail;
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
  float load_us;
  float network_us;
  float cost_us;
  float upper_us;

  [[nodiscard]] static inline NodeScore of(const ScoreColumns& c, const ScoreQuery& q, std::uint32_t i) noexcept {
    const float service = c.fixed_us[i] + c.per_work_us[i] * q.work;
    const float wait = c.wait_us[i] + c.others_ahead[i] * service;
    const float load = service * c.pressure[i];
    const float cost = ((wait + service) + load) + c.network_us[i];
    return {wait, service, load, c.network_us[i], cost, cost + service * c.tail[i]};
  }
};

/// cost_us[i] of every node in the mask that is not late, +inf for the others; returns the least of them.
/// `mask`: 64 nodes a word. About one nanosecond for 16 nodes with AVX-512.
float score(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask, std::uint32_t n_nodes,
            float* cost_us) noexcept;

}  // namespace infcore::route
