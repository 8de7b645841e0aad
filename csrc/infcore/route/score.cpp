#include <infcore/base/isa.hpp>
#include <infcore/base/lane_bits.hpp>
#include <infcore/route/score.hpp>

#include <array>
#include <cstddef>
#include <limits>
#include <utility>

namespace infcore::route {
namespace {

constexpr float no_cost = std::numeric_limits<float>::infinity();

using base::lane_bit;
static_assert(score_lanes == lane_bit.size());

[[gnu::always_inline]] inline std::uint32_t bits_at(const std::uint64_t* mask, std::uint32_t from) noexcept {
  return static_cast<std::uint32_t>(mask[from / 64] >> (from % 64));
}

/// Each lane's least value and where it was; the strict comparisons keep the lowest id among equals.
struct LaneLeasts {
  alignas(64) float least[score_lanes];
  alignas(64) std::uint32_t at[score_lanes];

  [[gnu::always_inline]] LaneLeasts() noexcept {
    for (std::uint32_t lane = 0; lane < score_lanes; ++lane) least[lane] = no_cost, at[lane] = 0;
  }
  /// value_of(i) of those that `bits` has, from `from` on.
  template <class ValueOf>
  [[gnu::always_inline]] void take(std::uint32_t bits, std::uint32_t from, ValueOf value_of) noexcept {
#pragma omp simd
    for (std::uint32_t lane = 0; lane < score_lanes; ++lane) {
      const float passing = value_of(std::size_t{from} + lane);
      const float value = (bits & lane_bit[lane]) != 0 ? passing : no_cost;
      at[lane] = value < least[lane] ? from : at[lane];
      least[lane] = value < least[lane] ? value : least[lane];
    }
  }
  [[nodiscard, gnu::always_inline]] float value() const noexcept {
    float value = no_cost;
#pragma omp simd reduction(min : value)
    for (std::uint32_t lane = 0; lane < score_lanes; ++lane) value = least[lane] < value ? least[lane] : value;
    return value;
  }
  [[nodiscard, gnu::always_inline]] Least of_all() const noexcept {
    const float lowest = value();
    std::uint32_t node = ~std::uint32_t{0};
#pragma omp simd reduction(min : node)
    for (std::uint32_t lane = 0; lane < score_lanes; ++lane) {
      const std::uint32_t here = least[lane] == lowest ? at[lane] + lane : ~std::uint32_t{0};
      node = here < node ? here : node;
    }
    return {lowest, node};
  }
};

/// value_of(i) of least value in the mask.
template <class ValueOf>
[[gnu::always_inline]] inline Least least_body(const std::uint64_t* __restrict mask, std::uint32_t n_nodes,
                                               ValueOf value_of) noexcept {
  LaneLeasts leasts;
  for (std::uint32_t from = 0; from < n_nodes; from += score_lanes)
    if (const std::uint32_t bits = bits_at(mask, from); bits != 0) leasts.take(bits, from, value_of);
  return leasts.of_all();
}

/// Bits of the mask whose lanes do not pass are cleared.
template <class Passes>
[[gnu::always_inline]] inline void keep_body(std::uint64_t* __restrict mask, std::uint32_t n_nodes,
                                             Passes passes) noexcept {
  for (std::uint32_t from = 0; from < n_nodes; from += score_lanes) {
    if (bits_at(mask, from) == 0) continue;
    std::uint32_t out = 0;
#pragma omp simd reduction(| : out)
    for (std::uint32_t lane = 0; lane < score_lanes; ++lane)
      out |= passes(std::size_t{from} + lane) ? 0u : lane_bit[lane];
    mask[from / 64] &= ~(std::uint64_t{out} << (from % 64));
  }
}

/// The figures of node i, and its score. Copies of the pointers, restricted: without them the compiler must assume that
/// a store changes a column.
template <unsigned parts>
struct Scorer {
  [[gnu::always_inline]] Scorer(const ScoreColumns& c, const ScoreQuery& query) noexcept : columns(c), q(query) {}
  template <bool with_risk = true>
  [[gnu::always_inline]] NodeScore at(std::size_t i) const noexcept {
    constexpr bool weighed = (parts & ScoreParts::weighed) != 0, timed = (parts & ScoreParts::deadline) != 0;
    return NodeScore::of<parts, with_risk>(
        {columns.wait_us[i], columns.others_ahead[i], columns.pressure[i], columns.network_us[i], columns.fixed_us[i],
         columns.per_work_us[i], timed ? columns.tail[i] : 0.0f, weighed ? columns.price_per_hour[i] : 0.0f,
         (parts & ScoreParts::prefix) != 0 ? columns.held_blocks[i] : 0.0f,
         (parts & ScoreParts::load) != 0 ? columns.load_us[i] : 0.0f},
        q);
  }
  [[gnu::always_inline]] bool late(const NodeScore& score) const noexcept {
    return (parts & ScoreParts::deadline) != 0 && score.upper_us > q.budget_us;
  }
  [[gnu::always_inline]] float cost(std::size_t i) const noexcept {
    const NodeScore score = at(i);
    return late(score) ? no_cost : score.cost_us;
  }
  [[gnu::always_inline]] float without_risk(std::size_t i) const noexcept {
    const NodeScore score = at<false>(i);
    return late(score) ? no_cost : score.cost_us;
  }
  [[gnu::always_inline]] float standing(std::size_t i) const noexcept {
    const NodeScore score = at<false>(i);
    return late(score) ? no_cost : score.standing_us;
  }
  const ScoreColumns columns;
  const ScoreQuery q;
};

/// With `notes`, what it finds of each node on the way goes there.
///
/// Where there is a risk, its division costs more than all else. It only adds, so a lane that is dearer without it than
/// the least so far needs none; by far the most are.
template <unsigned parts, bool notes>
[[gnu::always_inline]] inline Least least_cost_body(const ScoreColumns& c, const ScoreQuery& q,
                                                    const std::uint64_t* __restrict mask, std::uint32_t n,
                                                    ScoreNotes noted) noexcept {
  float* __restrict const standing_us = noted.standing_us;
  float* __restrict const without_risk_us = noted.without_risk_us;
  constexpr bool risky = (parts & ScoreParts::weighed) != 0 && (parts & ScoreParts::deadline) != 0;
  const Scorer<parts> scorer(c, q);
  const auto cost = [scorer](std::size_t i) __attribute__((always_inline)) { return scorer.cost(i); };
  if constexpr (!risky && !notes) {
    return least_body(mask, n, cost);
  } else {
    // Figures, not a NodeScore: with one in the loop, it is not vectorised.
    const auto without = [scorer](std::size_t i) __attribute__((always_inline)) { return scorer.without_risk(i); };
    const auto standing = [scorer](std::size_t i) __attribute__((always_inline)) { return scorer.standing(i); };
    LaneLeasts leasts;
    float least = no_cost;
    for (std::uint32_t from = 0; from < n; from += score_lanes) {
      const std::uint32_t bits = bits_at(mask, from);
      if (bits == 0) continue;
      std::uint32_t beaten = 0;
#pragma omp simd reduction(| : beaten)
      for (std::uint32_t lane = 0; lane < score_lanes; ++lane) {
        const std::size_t i = std::size_t{from} + lane;
        const float without_risk = without(i);
        if constexpr (notes) standing_us[i] = standing(i);
        if constexpr (notes) without_risk_us[i] = without_risk;
        beaten |= without_risk < least ? lane_bit[lane] : 0u;
      }
      if ((beaten & bits) == 0) continue;
      leasts.take(bits, from, cost);
      least = leasts.value();
    }
    return leasts.of_all();
  }
}

/// After a pass with `notes` over more of the same nodes.
template <unsigned parts>
[[gnu::always_inline]] inline Least least_noted_body(const ScoreColumns& c, const ScoreQuery& q,
                                                     const std::uint64_t* __restrict mask, std::uint32_t n,
                                                     const float* __restrict without_risk_us) noexcept {
  const Scorer<parts> scorer(c, q);
  LaneLeasts leasts;
  float least = no_cost;
  for (std::uint32_t from = 0; from < n; from += score_lanes) {
    const std::uint32_t bits = bits_at(mask, from);
    if (bits == 0) continue;
    std::uint32_t beaten = 0;
#pragma omp simd reduction(| : beaten)
    for (std::uint32_t lane = 0; lane < score_lanes; ++lane)
      beaten |= without_risk_us[std::size_t{from} + lane] < least ? lane_bit[lane] : 0u;
    if ((beaten & bits) == 0) continue;
    leasts.take(
        bits, from, [scorer](std::size_t i) __attribute__((always_inline)) { return scorer.cost(i); });
    least = leasts.value();
  }
  return leasts.of_all();
}

template <unsigned parts>
[[gnu::always_inline]] inline void costs_body(const ScoreColumns& c, const ScoreQuery& q, const std::uint64_t* mask,
                                              std::uint32_t n, float* __restrict cost_us) noexcept {
  const Scorer<parts> scorer(c, q);
  for (std::uint32_t from = 0; from < n; from += score_lanes) {
    const std::uint32_t bits = bits_at(mask, from);
#pragma omp simd
    for (std::uint32_t lane = 0; lane < score_lanes; ++lane) {
      const float passing = scorer.cost(std::size_t{from} + lane);
      cost_us[std::size_t{from} + lane] = (bits & lane_bit[lane]) != 0 ? passing : no_cost;
    }
  }
}

template <unsigned parts>
[[gnu::always_inline]] inline void keep_within_body(const ScoreColumns& c, const ScoreQuery& q, float standing_us_max,
                                                    std::uint64_t* mask, std::uint32_t n) noexcept {
  const Scorer<parts> scorer(c, q);
  keep_body(
      mask, n, [ scorer, standing_us_max ](std::size_t i) __attribute__((always_inline)) {
        const NodeScore score = scorer.at(i);
        return static_cast<int>(!scorer.late(score)) & static_cast<int>(score.standing_us <= standing_us_max);
      });
}

using LeastCost = Least (*)(const ScoreColumns&, const ScoreQuery&, const std::uint64_t*, std::uint32_t) noexcept;
using LeastNoting = Least (*)(const ScoreColumns&, const ScoreQuery&, const std::uint64_t*, std::uint32_t,
                              ScoreNotes) noexcept;
using LeastNoted = Least (*)(const ScoreColumns&, const ScoreQuery&, const std::uint64_t*, std::uint32_t,
                             const float*) noexcept;
using Costs = void (*)(const ScoreColumns&, const ScoreQuery&, const std::uint64_t*, std::uint32_t, float*) noexcept;
using KeepWithin = void (*)(const ScoreColumns&, const ScoreQuery&, float, std::uint64_t*, std::uint32_t) noexcept;

/// The loops compiled for one ISA, by the parts in use.
struct Loops {
  std::array<LeastCost, ScoreParts::n_sets> least_cost;
  std::array<LeastNoting, ScoreParts::n_sets> least_noting;
  std::array<LeastNoted, ScoreParts::n_sets> least_noted;
  std::array<Costs, ScoreParts::n_sets> costs;
  std::array<KeepWithin, ScoreParts::n_sets> keep_within;
  Least (*least_of)(const float*, const std::uint64_t*, std::uint32_t) noexcept;
  void (*keep_below)(const float*, const float*, std::uint64_t*, std::uint32_t) noexcept;
  void (*keep_at_most)(const float*, float, std::uint64_t*, std::uint32_t) noexcept;
};

// One copy of the loops for each ISA. None has fma among its targets, so no compiler can fuse, and all agree to the
// bit.
#define INFCORE_SCORE_FOR(isa, attributes)                                                                            \
  struct isa##_loops {                                                                                                \
    template <unsigned parts>                                                                                         \
    attributes static Least least_cost(const ScoreColumns& c, const ScoreQuery& q, const std::uint64_t* mask,         \
                                       std::uint32_t n) noexcept {                                                    \
      return least_cost_body<parts, false>(c, q, mask, n, {});                                                        \
    }                                                                                                                 \
    template <unsigned parts>                                                                                         \
    attributes static Least least_noting(const ScoreColumns& c, const ScoreQuery& q, const std::uint64_t* mask,       \
                                         std::uint32_t n, ScoreNotes noted) noexcept {                                \
      return least_cost_body<parts, true>(c, q, mask, n, noted);                                                      \
    }                                                                                                                 \
    template <unsigned parts>                                                                                         \
    attributes static Least least_noted(const ScoreColumns& c, const ScoreQuery& q, const std::uint64_t* mask,        \
                                        std::uint32_t n, const float* without_risk_us) noexcept {                     \
      return least_noted_body<parts>(c, q, mask, n, without_risk_us);                                                 \
    }                                                                                                                 \
    template <unsigned parts>                                                                                         \
    attributes static void costs(const ScoreColumns& c, const ScoreQuery& q, const std::uint64_t* mask,               \
                                 std::uint32_t n, float* cost_us) noexcept {                                          \
      costs_body<parts>(c, q, mask, n, cost_us);                                                                      \
    }                                                                                                                 \
    template <unsigned parts>                                                                                         \
    attributes static void keep_within(const ScoreColumns& c, const ScoreQuery& q, float most, std::uint64_t* mask,   \
                                       std::uint32_t n) noexcept {                                                    \
      keep_within_body<parts>(c, q, most, mask, n);                                                                   \
    }                                                                                                                 \
    attributes static Least least_of(const float* column, const std::uint64_t* mask, std::uint32_t n) noexcept {      \
      return least_body(                                                                                              \
          mask, n, [column](std::size_t i) __attribute__((always_inline)) { return column[i]; });                     \
    }                                                                                                                 \
    attributes static void keep_below(const float* column, const float* bound, std::uint64_t* mask,                   \
                                      std::uint32_t n) noexcept {                                                     \
      keep_body(                                                                                                      \
          mask, n, [ column, bound ](std::size_t i) __attribute__((always_inline)) { return column[i] < bound[i]; }); \
    }                                                                                                                 \
    attributes static void keep_at_most(const float* column, float most, std::uint64_t* mask,                         \
                                        std::uint32_t n) noexcept {                                                   \
      keep_body(                                                                                                      \
          mask, n, [ column, most ](std::size_t i) __attribute__((always_inline)) { return column[i] <= most; });     \
    }                                                                                                                 \
  };

INFCORE_SCORE_FOR(baseline, )
#if defined(__x86_64__)
INFCORE_SCORE_FOR(avx2, [[gnu::target("avx2")]])
#if defined(__clang__)  // which knows the preference as a flag of the whole file only
#define INFCORE_AVX512 "avx512f,avx512dq,avx512bw,avx512vl"
#else
#define INFCORE_AVX512 "avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512"
#endif
INFCORE_SCORE_FOR(avx512, [[gnu::target(INFCORE_AVX512)]])
#undef INFCORE_AVX512
#endif
#undef INFCORE_SCORE_FOR

template <class Isa, unsigned... parts>
constexpr Loops loops_of(std::integer_sequence<unsigned, parts...>) noexcept {
  return {{&Isa::template least_cost<parts>...},
          {&Isa::template least_noting<parts>...},
          {&Isa::template least_noted<parts>...},
          {&Isa::template costs<parts>...},
          {&Isa::template keep_within<parts>...},
          &Isa::least_of,
          &Isa::keep_below,
          &Isa::keep_at_most};
}

template <class Isa>
constexpr Loops loops_for = loops_of<Isa>(std::make_integer_sequence<unsigned, ScoreParts::n_sets>());

const Loops& loops() noexcept {
  static const Loops* const best = [] {
    switch (base::isa()) {
#if defined(__x86_64__)
      case base::Isa::avx512:
        return &loops_for<avx512_loops>;
      case base::Isa::avx2:
        return &loops_for<avx2_loops>;
#endif
      default:
        return &loops_for<baseline_loops>;
    }
  }();
  return *best;
}

template <unsigned... parts>
NodeScore score_by(const NodeFigures& node, const ScoreQuery& q,
                   std::integer_sequence<unsigned, parts...> /*all*/) noexcept {
  using Of = NodeScore (*)(const NodeFigures&, const ScoreQuery&) noexcept;
  static constexpr Of by_parts[] = {
      [](const NodeFigures& n, const ScoreQuery& query) noexcept { return NodeScore::of<parts>(n, query); }...};
  return by_parts[q.parts](node, q);
}

}  // namespace

NodeScore NodeScore::of(const NodeFigures& node, const ScoreQuery& query) noexcept {
  return score_by(node, query, std::make_integer_sequence<unsigned, ScoreParts::n_sets>());
}

Least least_cost(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask,
                 std::uint32_t n_nodes) noexcept {
  return loops().least_cost[query.parts](columns, query, mask, n_nodes);
}

Least least_cost_noting(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask,
                        std::uint32_t n_nodes, ScoreNotes noted) noexcept {
  return loops().least_noting[query.parts](columns, query, mask, n_nodes, noted);
}

Least least_cost_noted(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask,
                       std::uint32_t n_nodes, const float* without_risk_us) noexcept {
  return loops().least_noted[query.parts](columns, query, mask, n_nodes, without_risk_us);
}

void costs(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask, std::uint32_t n_nodes,
           float* cost_us) noexcept {
  loops().costs[query.parts](columns, query, mask, n_nodes, cost_us);
}

void keep_within(const ScoreColumns& columns, const ScoreQuery& query, float standing_us_max, std::uint64_t* mask,
                 std::uint32_t n_nodes) noexcept {
  loops().keep_within[query.parts](columns, query, standing_us_max, mask, n_nodes);
}

void keep_below(const float* column, const float* bound, std::uint64_t* mask, std::uint32_t n_nodes) noexcept {
  loops().keep_below(column, bound, mask, n_nodes);
}

void keep_at_most(const float* column, float most, std::uint64_t* mask, std::uint32_t n_nodes) noexcept {
  loops().keep_at_most(column, most, mask, n_nodes);
}

Least least_of(const float* column, const std::uint64_t* mask, std::uint32_t n_nodes) noexcept {
  return loops().least_of(column, mask, n_nodes);
}

}  // namespace infcore::route
