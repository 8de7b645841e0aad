#pragma once
#include <infcore/contracts/latency_table.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace infcore::engine {

/// FinishColumns::free_at_s of a node that has a free slot.
inline constexpr double free_now = -std::numeric_limits<double>::infinity();
/// Longer than from any time to any other; what is further away is free_now.
inline constexpr double free_in_s_max = 1e11;

/// Finished before a time means by this much of it: equal nodes whose learned curves differ in the last digits finish
/// together, and a free one is not passed over for a busy one.
inline constexpr float strictly = 1.0f - 0x1p-16f;
/// Where free devices were passed over for busy ones, look again after this share of what the first of them takes for
/// one request: those it waits for may be late.
inline constexpr double look_again = 0.125;

/// One figure per node, padded to 64 nodes.
struct FinishColumns {
  const double* free_at_s;  ///< when its next slot is expected to be free, on the engine's clock
  contracts::BatchColumns curves;
};

/// What is asked of every candidate alike.
struct FinishQuery {
  double now_s;
  float work_mean;
  float max_batch_size;
  float n_requests;
};

/// One node as the joint choice sees it: seconds until it is free, and the line that a batch of n takes. In float32 and
/// in this order, so that a node alone, the columns on every ISA and the plain Python model agree to the bit.
struct NodeFinish {
  float free_in_s, base_s, slope_s;

  /// One that is overdue is expected to take as long again as it is late.
  [[nodiscard]] static inline float free_in(double free_at_s, double now_s) noexcept {
    const double in_s = std::fabs(free_at_s - now_s);
    return static_cast<float>(in_s < free_in_s_max ? in_s : 0.0);
  }
  [[nodiscard]] static inline NodeFinish of(float free_in_s, const contracts::BatchColumns& curves, std::size_t node,
                                            float work) noexcept {
    return {free_in_s, curves.base_s[node], curves.per_request_s[node] + curves.per_work_s[node] * work};
  }

  /// Seconds of a batch of n, the node being free.
  [[nodiscard]] inline float batch_s(float n) const noexcept { return base_s + slope_s * n; }

  /// How many of `n_requests` it finishes by then, batch after batch: whole full ones, and the last as far as it is
  /// done.
  [[nodiscard]] inline float n_by(float t_s, const FinishQuery& q) const noexcept { return n_in(t_s - free_in_s, q); }
  /// The same, from when it is free.
  [[nodiscard]] inline float n_in(float room_s, const FinishQuery& q) const noexcept {
    const float full_s = batch_s(q.max_batch_size);
    float batches = room_s / full_s;
    batches = batches > 0.0f ? batches : 0.0f;
    batches = batches < q.n_requests ? batches : q.n_requests;
    const auto whole = static_cast<float>(static_cast<std::int32_t>(batches));
    float rest = (room_s - whole * full_s - base_s) / slope_s;
    rest = rest > 0.0f ? rest : 0.0f;
    rest = rest < q.max_batch_size ? rest : q.max_batch_size;
    return whole * q.max_batch_size + static_cast<float>(static_cast<std::int32_t>(rest));
  }
};

/// So many requests, batch after batch on one node.
[[nodiscard]] inline double batches_s(const NodeFinish& finish, std::uint32_t n_requests,
                                      std::uint32_t max_batch_size) noexcept {
  const std::uint32_t n_full = n_requests / max_batch_size, n_rest = n_requests % max_batch_size;
  double s = n_full * static_cast<double>(finish.batch_s(static_cast<float>(max_batch_size)));
  if (n_rest > 0) s += static_cast<double>(finish.batch_s(static_cast<float>(n_rest)));
  return s;
}

/// What least_cost asks of every candidate alike.
struct CostQuery {
  double now_s;
  float work_mean;
  float n_requests;  ///< in one batch
  float by_s;        ///< nobody who would be done with them later is looked at
  float s_per_usd;   ///< seconds that a US dollar of the batch's time counts for
  float wait_slack;  ///< what a node still takes until it is free counts so many times for by_s
};

struct LeastCost {
  float cost_s;        ///< +inf where nobody is done in time
  std::uint32_t node;  ///< the lowest of those that hold it
  float first_s;       ///< until the first of all is done, whatever it costs; +inf where the mask is empty
};

struct LeastAlone {
  float seconds;       ///< +inf where the mask is empty
  std::uint32_t node;  ///< the lowest of those that hold it
};

/// The node of the mask (64 a word) that is done first with one request of that work, were it free now.
[[nodiscard]] LeastAlone least_alone(const contracts::BatchColumns&, const std::uint64_t* mask, std::uint32_t n_nodes,
                                     float work) noexcept;

/// The node of the mask where one batch of so many, begun once it is free, costs least: the seconds until it is done,
/// and the money for as long as it takes. `usd_per_s`: of one slot, a figure per node.
[[nodiscard]] LeastCost least_cost(const FinishColumns&, const float* usd_per_s, const std::uint64_t* mask,
                                   std::uint32_t n_nodes, const CostQuery&) noexcept;

/// Whether the nodes of the mask together finish fewer than `n_enough` by then. Looks no further once they are enough.
[[nodiscard]] bool finish_fewer(const FinishColumns&, const std::uint64_t* mask, std::uint32_t n_nodes,
                                const FinishQuery&, float t_s, std::uint32_t n_enough) noexcept;

}  // namespace infcore::engine
