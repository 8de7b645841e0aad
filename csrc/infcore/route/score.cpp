#include <infcore/base/isa.hpp>
#include <infcore/route/score.hpp>

#include <array>
#include <cstddef>
#include <limits>
#include <utility>

namespace infcore::route {
namespace {

constexpr float none = std::numeric_limits<float>::infinity();

alignas(64) constexpr auto lane_bit = [] {
  std::array<std::uint32_t, score_lanes> bits{};
  for (std::uint32_t lane = 0; lane < score_lanes; ++lane) bits[lane] = 1u << lane;
  return bits;
}();

[[gnu::always_inline]] inline std::uint32_t bits_at(const std::uint64_t* mask, std::uint32_t from) noexcept {
  return static_cast<std::uint32_t>(mask[from / 64] >> (from % 64));
}

/// value_of(i) of least value in the mask. Each lane keeps its own least and where it was; the strict comparisons keep
/// the lowest id among equals.
template <class ValueOf>
[[gnu::always_inline]] inline Least least_body(const std::uint64_t* __restrict mask, std::uint32_t n_nodes,
                                               ValueOf value_of) noexcept {
  alignas(64) float least[score_lanes];
  alignas(64) std::uint32_t at[score_lanes];
  for (std::uint32_t lane = 0; lane < score_lanes; ++lane) least[lane] = none, at[lane] = 0;
  for (std::uint32_t from = 0; from < n_nodes; from += score_lanes) {
    const std::uint32_t bits = bits_at(mask, from);
    if (bits == 0) continue;
#pragma omp simd
    for (std::uint32_t lane = 0; lane < score_lanes; ++lane) {
      const float passing = value_of(std::size_t{from} + lane);
      const float value = (bits & lane_bit[lane]) != 0 ? passing : none;
      at[lane] = value < least[lane] ? from : at[lane];
      least[lane] = value < least[lane] ? value : least[lane];
    }
  }
  float value = none;
#pragma omp simd reduction(min : value)
  for (std::uint32_t lane = 0; lane < score_lanes; ++lane) value = least[lane] < value ? least[lane] : value;
  std::uint32_t node = ~std::uint32_t{0};
#pragma omp simd reduction(min : node)
  for (std::uint32_t lane = 0; lane < score_lanes; ++lane) {
    const std::uint32_t here = least[lane] == value ? at[lane] + lane : ~std::uint32_t{0};
    node = here < node ? here : node;
  }
  return {value, node};
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
  [[gnu::always_inline]] NodeScore at(std::size_t i) const noexcept {
    constexpr bool weighed = (parts & ScoreParts::weighed) != 0, timed = (parts & ScoreParts::deadline) != 0;
    return NodeScore::of<parts>(
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
    return late(score) ? none : score.cost_us;
  }
  const ScoreColumns columns;
  const ScoreQuery q;
};

template <unsigned parts>
[[gnu::always_inline]] inline Least least_cost_body(const ScoreColumns& c, const ScoreQuery& q,
                                                    const std::uint64_t* mask, std::uint32_t n) noexcept {
  const Scorer<parts> scorer(c, q);
  return least_body(
      mask, n, [scorer](std::size_t i) __attribute__((always_inline)) { return scorer.cost(i); });
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
      cost_us[std::size_t{from} + lane] = (bits & lane_bit[lane]) != 0 ? passing : none;
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
using Costs = void (*)(const ScoreColumns&, const ScoreQuery&, const std::uint64_t*, std::uint32_t, float*) noexcept;
using KeepWithin = void (*)(const ScoreColumns&, const ScoreQuery&, float, std::uint64_t*, std::uint32_t) noexcept;

/// The loops compiled for one ISA, by the parts in use.
struct Loops {
  std::array<LeastCost, ScoreParts::n_sets> least_cost;
  std::array<Costs, ScoreParts::n_sets> costs;
  std::array<KeepWithin, ScoreParts::n_sets> keep_within;
  Least (*least_of)(const float*, const std::uint64_t*, std::uint32_t) noexcept;
  void (*keep_below)(const float*, const float*, std::uint64_t*, std::uint32_t) noexcept;
};

// One copy of the loops for each ISA. None has fma among its targets, so no compiler can fuse, and all agree to the
// bit.
#define INFCORE_SCORE_FOR(isa, attributes)                                                                            \
  struct isa##_loops {                                                                                                \
    template <unsigned parts>                                                                                         \
    attributes static Least least_cost(const ScoreColumns& c, const ScoreQuery& q, const std::uint64_t* mask,         \
                                       std::uint32_t n) noexcept {                                                    \
      return least_cost_body<parts>(c, q, mask, n);                                                                   \
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
          {&Isa::template costs<parts>...},
          {&Isa::template keep_within<parts>...},
          &Isa::least_of,
          &Isa::keep_below};
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

Least least_of(const float* column, const std::uint64_t* mask, std::uint32_t n_nodes) noexcept {
  return loops().least_of(column, mask, n_nodes);
}

}  // namespace infcore::route
