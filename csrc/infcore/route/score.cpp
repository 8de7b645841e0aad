#include <infcore/base/isa.hpp>
#include <infcore/route/score.hpp>

#include <array>
#include <cstddef>
#include <limits>

namespace infcore::route {
namespace {

constexpr float none = std::numeric_limits<float>::infinity();

alignas(64) constexpr auto lane_bit = [] {
  std::array<std::uint32_t, score_lanes> bits{};
  for (std::uint32_t lane = 0; lane < score_lanes; ++lane) bits[lane] = 1u << lane;
  return bits;
}();

/// value_of(i) for each node, +inf outside the mask; the strict comparison keeps the lowest id among equals.
template <class ValueOf>
[[gnu::always_inline]] inline Least least_body(const std::uint64_t* __restrict mask, std::uint32_t n_nodes,
                                               float* __restrict values, ValueOf value_of) noexcept {
  Least least{none, 0};
  for (std::uint32_t from = 0; from < n_nodes; from += score_lanes) {
    const auto bits = static_cast<std::uint32_t>(mask[from / 64] >> (from % 64));
    float here = none;
#pragma omp simd reduction(min : here)
    for (std::uint32_t lane = 0; lane < score_lanes; ++lane) {
      const std::size_t i = std::size_t{from} + lane;
      const float passing = value_of(i);
      const float value = (bits & lane_bit[lane]) != 0 ? passing : none;
      values[i] = value;
      here = value < here ? value : here;
    }
    if (here < least.value) least = {here, from};
  }
  return least;
}

[[gnu::always_inline]] inline Least score_body(const ScoreColumns& columns, const ScoreQuery& query,
                                               const std::uint64_t* mask, std::uint32_t n_nodes,
                                               float* cost_us) noexcept {
  // Copies, restricted: without them the compiler must assume that storing a cost changes a column.
  const float* __restrict const wait_us = columns.wait_us;
  const float* __restrict const others_ahead = columns.others_ahead;
  const float* __restrict const pressure = columns.pressure;
  const float* __restrict const network_us = columns.network_us;
  const float* __restrict const fixed_us = columns.fixed_us;
  const float* __restrict const per_work_us = columns.per_work_us;
  const float* __restrict const tail = columns.tail;
  const ScoreQuery q = query;
  return least_body(
      mask, n_nodes, cost_us, [=](std::size_t i) __attribute__((always_inline)) {
        const NodeScore node = NodeScore::of(
            {wait_us[i], others_ahead[i], pressure[i], network_us[i], fixed_us[i], per_work_us[i], tail[i]}, q.work);
        return node.upper_us > q.budget_us ? none : node.cost_us;
      });
}

[[gnu::always_inline]] inline Least column_body(const float* __restrict column, const std::uint64_t* mask,
                                                std::uint32_t n_nodes, float* passing) noexcept {
  return least_body(
      mask, n_nodes, passing, [=](std::size_t i) __attribute__((always_inline)) { return column[i]; });
}

// One copy of the loops for each ISA. None has fma among its targets, so no compiler can fuse, and all agree to the
// bit.
#define INFCORE_SCORE_FOR(isa, attributes)                                                                             \
  attributes Least score_##isa(const ScoreColumns& c, const ScoreQuery& q, const std::uint64_t* mask, std::uint32_t n, \
                               float* cost_us) noexcept {                                                              \
    return score_body(c, q, mask, n, cost_us);                                                                         \
  }                                                                                                                    \
  attributes Least column_##isa(const float* column, const std::uint64_t* mask, std::uint32_t n,                       \
                                float* passing) noexcept {                                                             \
    return column_body(column, mask, n, passing);                                                                      \
  }

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

struct Loops {
  decltype(&score_baseline) score;
  decltype(&column_baseline) column;
};

const Loops& loops() noexcept {
  static const Loops best = [] {
    switch (base::isa()) {
#if defined(__x86_64__)
      case base::Isa::avx512:
        return Loops{score_avx512, column_avx512};
      case base::Isa::avx2:
        return Loops{score_avx2, column_avx2};
#endif
      default:
        return Loops{score_baseline, column_baseline};
    }
  }();
  return best;
}

}  // namespace

Least score(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask, std::uint32_t n_nodes,
            float* cost_us) noexcept {
  return loops().score(columns, query, mask, n_nodes, cost_us);
}

Least least_of(const float* column, const std::uint64_t* mask, std::uint32_t n_nodes, float* passing) noexcept {
  return loops().column(column, mask, n_nodes, passing);
}

}  // namespace infcore::route
