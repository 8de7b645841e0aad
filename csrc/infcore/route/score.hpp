#pragma once
#include <cstdint>

namespace infcore::route {

/// Columns that are scored together are padded to so many nodes.
inline constexpr std::uint32_t score_lanes = 32;

/// Terms that not every request has: the loop is compiled for each set of them, so that one costs nothing where it is
/// not in use.
struct ScoreParts {
  static constexpr unsigned deadline = 1;  ///< a budget: who is late is out
  static constexpr unsigned weighed = 2;   ///< money, and with a deadline the risk of missing it
  static constexpr unsigned prefix = 4;    ///< blocks of the prompt that nodes hold
  static constexpr unsigned load = 8;      ///< models that would have to be loaded first
  static constexpr unsigned n_sets = 16;
};

/// One figure per node. `held_blocks` and `load_us` are read where their part is in use alone.
struct ScoreColumns {
  const float* wait_us;
  const float* others_ahead;
  const float* pressure;
  const float* network_us;
  const float* fixed_us;
  const float* per_work_us;
  const float* tail;
  const float* price_per_hour;
  const float* held_blocks;
  const float* load_us;  ///< 0: resident; +inf: can't be
};

/// One node's row of them.
struct NodeFigures {
  float wait_us, others_ahead, pressure, network_us, fixed_us, per_work_us, tail, price_per_hour, held_blocks, load_us;
};

struct ScoreQuery {
  unsigned parts{};
  float work{};
  float budget_us{};     ///< until the deadline
  float price_weight{};  ///< microseconds of cost that a microsecond of work counts for, per US dollar an hour
  float miss_us{};       ///< what missing the deadline costs
  float block_work{};    ///< work that a held block saves
};

/// The arithmetic of one node. Everything that compares or explains nodes goes through here, in float32 and in this
/// order, so that pick and explain agree to the bit on every ISA.
struct NodeScore {
  float wait_us;
  float service_us;
  float pressure_us;
  float load_us;
  float network_us;
  float saving_us;
  float saved_work;  ///< what saving_us is about
  float price_us;
  float risk_us;
  float cost_us;
  float upper_us;     ///< when it ends at the upper quantile of its work
  float standing_us;  ///< of the cost, what does not depend on what signals say of the moment

  template <unsigned parts, bool with_risk = true>
  [[nodiscard, gnu::always_inline]] static inline NodeScore of(const NodeFigures& node, const ScoreQuery& q) noexcept;
  /// For one node: the same function by the query's parts.
  [[nodiscard]] static NodeScore of(const NodeFigures& node, const ScoreQuery& query) noexcept;
};

template <unsigned parts, bool with_risk>
inline NodeScore NodeScore::of(const NodeFigures& node, const ScoreQuery& q) noexcept {
  constexpr bool has_deadline = (parts & ScoreParts::deadline) != 0;
  NodeScore s{};
  s.service_us = node.fixed_us + node.per_work_us * q.work;
  float busy = s.service_us;  // what the node will have to do
  if constexpr ((parts & ScoreParts::prefix) != 0) {
    const float held_work = node.held_blocks * q.block_work;
    s.saved_work = held_work < q.work ? held_work : q.work;
    s.saving_us = node.per_work_us * s.saved_work;  // <= service: rounding is monotone
    busy = busy - s.saving_us;
  }
  s.wait_us = node.wait_us + node.others_ahead * busy;
  s.pressure_us = busy * node.pressure;
  s.network_us = node.network_us;
  float standing = busy;
  float finish = (s.wait_us + busy) + s.pressure_us;
  if constexpr ((parts & ScoreParts::load) != 0) {
    s.load_us = node.load_us;
    finish = finish + s.load_us;
    standing = standing + s.load_us;
  }
  finish = finish + s.network_us;
  standing = standing + s.network_us;
  s.cost_us = finish;
  if constexpr (has_deadline) s.upper_us = finish + busy * node.tail;
  if constexpr ((parts & ScoreParts::weighed) != 0) {
    s.price_us = busy * (node.price_per_hour * q.price_weight);
    s.cost_us = s.cost_us + s.price_us;
    standing = standing + s.price_us;
    if constexpr (has_deadline && with_risk) {
      // Cantelli's inequality, a bound for every distribution: P(late) <= sd^2 / (sd^2 + slack^2). The waiting is a sum
      // of services, so it is trusted as they are.
      const float sd = (s.wait_us + busy) * (node.tail * (1.0f / 2.33f));
      const float ahead = q.budget_us - finish;
      const float slack = ahead > 0.0f ? ahead : 0.0f;
      constexpr float most_sd = 1e18f;  // half a million years: its square is still finite
      const float bounded = sd < most_sd ? sd : most_sd;
      const float variance = bounded * bounded;
      constexpr float not_zero = 1e-12f;  // 0 / 0 is 0 here
      s.risk_us = q.miss_us * (variance / ((variance + slack * slack) + not_zero));
      s.cost_us = s.cost_us + s.risk_us;
    }
  }
  s.standing_us = standing;
  return s;
}

struct Least {
  float value;         ///< +inf where no node passes
  std::uint32_t node;  ///< the first that has it
};

/// The node of least cost of those in the mask that are not late. `mask`: 64 nodes a word.
[[nodiscard]] Least least_cost(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask,
                               std::uint32_t n_nodes) noexcept;

/// Columns for what a pass finds on its way of every node in the mask, +inf where it is late. The figures of other
/// nodes, up to whole score_lanes, are nobody's.
struct ScoreNotes {
  float* standing_us{};
  float* without_risk_us{};  ///< its cost, but for the risk: never more than with it
};
[[nodiscard]] Least least_cost_noting(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask,
                                      std::uint32_t n_nodes, ScoreNotes noted) noexcept;
/// least_cost() of some of these nodes, from what was noted.
[[nodiscard]] Least least_cost_noted(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask,
                                     std::uint32_t n_nodes, const float* without_risk_us) noexcept;

/// cost_us[i] of every node in the mask that is not late, +inf for the others, up to whole score_lanes.
void costs(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask, std::uint32_t n_nodes,
           float* cost_us) noexcept;

/// Takes those out of the mask that are late, or whose standing cost is above `standing_us_max`.
void keep_within(const ScoreColumns& columns, const ScoreQuery& query, float standing_us_max, std::uint64_t* mask,
                 std::uint32_t n_nodes) noexcept;

/// Takes those out of the mask whose figure has reached its bound.
void keep_below(const float* column, const float* bound, std::uint64_t* mask, std::uint32_t n_nodes) noexcept;

/// Takes those out of the mask whose figure is above `most`.
void keep_at_most(const float* column, float most, std::uint64_t* mask, std::uint32_t n_nodes) noexcept;

/// The least figure of a column as it is, of those in the mask.
[[nodiscard]] Least least_of(const float* column, const std::uint64_t* mask, std::uint32_t n_nodes) noexcept;

}  // namespace infcore::route
