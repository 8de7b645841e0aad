#include <infcore/base/isa.hpp>
#include <infcore/base/lane_bits.hpp>
#include <infcore/engine/finish_times.hpp>

#include <array>
#include <cstddef>

namespace infcore::engine {
namespace {

/// Nodes a step. The columns are padded to 64.
constexpr std::uint32_t scan_lanes = 32;
constexpr float no_time = std::numeric_limits<float>::infinity();

using base::lane_bit;
static_assert(scan_lanes == lane_bit.size());

[[gnu::always_inline]] inline std::uint32_t bits_at(const std::uint64_t* mask, std::uint32_t from) noexcept {
  return static_cast<std::uint32_t>(mask[from / 64] >> (from % 64));
}

[[gnu::always_inline]] inline LeastAlone least_body(const contracts::BatchColumns& curves, const std::uint64_t* mask,
                                                    std::uint32_t n_nodes, float work) noexcept {
  const float* __restrict const base_s = curves.base_s;
  const float* __restrict const per_request_s = curves.per_request_s;
  const float* __restrict const per_work_s = curves.per_work_s;
  const auto alone_s = [=](std::size_t i) __attribute__((always_inline)) {
    return base_s[i] + (per_request_s[i] + per_work_s[i] * work) * 1.0f;  // as NodeFinish::batch_s
  };
  LeastAlone least{no_time, 0};
  for (std::uint32_t from = 0; from < n_nodes; from += scan_lanes) {
    const std::uint32_t bits = bits_at(mask, from);
    if (bits == 0) continue;
    float here = no_time;
#pragma omp simd reduction(min : here)
    for (std::uint32_t lane = 0; lane < scan_lanes; ++lane) {
      const float alone = alone_s(std::size_t{from} + lane);
      const float value = (bits & lane_bit[lane]) != 0 ? alone : no_time;
      here = value < here ? value : here;
    }
    if (here < least.seconds) least = {here, from};  // strict: the lowest id among equals
  }
  if (least.seconds == no_time) return least;
  const std::uint32_t bits = bits_at(mask, least.node);
  while ((bits & lane_bit[least.node % scan_lanes]) == 0 || alone_s(least.node) != least.seconds) ++least.node;
  return least;
}

[[gnu::always_inline]] inline LeastCost cost_body(const FinishColumns& columns, const float* usd_per_s,
                                                  const std::uint64_t* mask, std::uint32_t n_nodes,
                                                  const CostQuery& query) noexcept {
  const CostQuery q = query;
  std::array<float, scan_lanes> cost_s;
  const auto look = [&](std::uint32_t from) __attribute__((always_inline)) {
    const std::uint32_t bits = bits_at(mask, from);
    const double* __restrict const free_at_s = columns.free_at_s + from;
    const float* __restrict const base_s = columns.curves.base_s + from;
    const float* __restrict const per_request_s = columns.curves.per_request_s + from;
    const float* __restrict const per_work_s = columns.curves.per_work_s + from;
    const float* __restrict const usd = usd_per_s + from;
    alignas(64) std::array<float, scan_lanes> free_in_s;
    for (std::uint32_t lane = 0; lane < scan_lanes; ++lane) {
      free_in_s[lane] = NodeFinish::free_in(free_at_s[lane], q.now_s);
    }
    float first_s = no_time;
#pragma omp simd reduction(min : first_s)
    for (std::uint32_t lane = 0; lane < scan_lanes; ++lane) {
      const float batch_s = base_s[lane] + (per_request_s[lane] + per_work_s[lane] * q.work_mean) * q.n_requests;
      const float finish_s = (bits & lane_bit[lane]) != 0 ? free_in_s[lane] + batch_s : no_time;
      const float costs_s = finish_s + q.s_per_usd * usd[lane] * batch_s;
      const float late_s = q.wait_slack * free_in_s[lane] + batch_s;
      cost_s[lane] = (bits & lane_bit[lane]) != 0 && late_s <= q.by_s ? costs_s : no_time;
      first_s = finish_s < first_s ? finish_s : first_s;
    }
    return first_s;
  };
  LeastCost least{no_time, 0, no_time};
  for (std::uint32_t from = 0; from < n_nodes; from += scan_lanes) {
    if (bits_at(mask, from) == 0) continue;
    const float first_s = look(from);
    least.first_s = first_s < least.first_s ? first_s : least.first_s;
    float here = no_time;
#pragma omp simd reduction(min : here)
    for (std::uint32_t lane = 0; lane < scan_lanes; ++lane) here = cost_s[lane] < here ? cost_s[lane] : here;
    if (here >= least.cost_s) continue;  // the lowest id among equals
    std::uint32_t lane = 0;
    while (cost_s[lane] != here) ++lane;
    least.cost_s = here;
    least.node = from + lane;
  }
  return least;
}

[[gnu::always_inline]] inline bool fewer_body(const FinishColumns& columns, const std::uint64_t* mask,
                                              std::uint32_t n_nodes, const FinishQuery& query, float t_s,
                                              std::uint32_t n_enough) noexcept {
  const double* __restrict const free_at_s = columns.free_at_s;
  const float* __restrict const base_s = columns.curves.base_s;
  const float* __restrict const per_request_s = columns.curves.per_request_s;
  const float* __restrict const per_work_s = columns.curves.per_work_s;
  const FinishQuery q = query;
  const auto n_most = static_cast<float>(n_enough);  // no node counts for more, so that a step's sum fits
  const float rest_most = q.max_batch_size < n_most ? q.max_batch_size : n_most;
  std::uint32_t n = 0;
  for (std::uint32_t from = 0; from < n_nodes; from += scan_lanes) {
    const std::uint32_t bits = bits_at(mask, from);
    if (bits == 0) continue;
    alignas(64) std::array<float, scan_lanes> room_s, slope_s;
    for (std::uint32_t lane = 0; lane < scan_lanes; ++lane) {
      room_s[lane] = t_s - NodeFinish::free_in(free_at_s[std::size_t{from} + lane], q.now_s);
    }
    float beyond_s = -no_time;
#pragma omp simd reduction(max : beyond_s)
    for (std::uint32_t lane = 0; lane < scan_lanes; ++lane) {
      const std::size_t i = std::size_t{from} + lane;
      slope_s[lane] = per_request_s[i] + per_work_s[i] * q.work_mean;
      const float beyond = room_s[lane] - (base_s[i] + slope_s[lane] * q.max_batch_size);
      beyond_s = beyond_s < beyond ? beyond : beyond_s;
    }
    std::int32_t here = 0;
    if (beyond_s < 0.0f) {  // none has time for a full batch, as most often: one division does
      for (std::uint32_t lane = 0; lane < scan_lanes; ++lane) {
        float rest = (room_s[lane] - base_s[std::size_t{from} + lane]) / slope_s[lane];
        rest = rest > 0.0f ? rest : 0.0f;
        rest = rest < rest_most ? rest : rest_most;
        here += (bits & lane_bit[lane]) != 0 ? static_cast<std::int32_t>(rest) : 0;
      }
    } else {
      for (std::uint32_t lane = 0; lane < scan_lanes; ++lane) {
        const float done = NodeFinish{0.0f, base_s[std::size_t{from} + lane], slope_s[lane]}.n_in(room_s[lane], q);
        const float counts = done < n_most ? done : n_most;
        here += (bits & lane_bit[lane]) != 0 ? static_cast<std::int32_t>(counts) : 0;
      }
    }
    n += static_cast<std::uint32_t>(here);
    if (n >= n_enough) return false;
  }
  return true;
}

// One copy of the loops for each ISA. None has fma among its targets, so no compiler can fuse, and all agree to the
// bit.
#define INFCORE_FINISH_FOR(isa, attributes)                                                                       \
  attributes LeastAlone least_##isa(const contracts::BatchColumns& c, const std::uint64_t* mask, std::uint32_t n, \
                                    float work) noexcept {                                                        \
    return least_body(c, mask, n, work);                                                                          \
  }                                                                                                               \
  attributes LeastCost cost_##isa(const FinishColumns& c, const float* usd_per_s, const std::uint64_t* mask,      \
                                  std::uint32_t n, const CostQuery& q) noexcept {                                 \
    return cost_body(c, usd_per_s, mask, n, q);                                                                   \
  }                                                                                                               \
  attributes bool fewer_##isa(const FinishColumns& c, const std::uint64_t* mask, std::uint32_t n,                 \
                              const FinishQuery& q, float t_s, std::uint32_t n_enough) noexcept {                 \
    return fewer_body(c, mask, n, q, t_s, n_enough);                                                              \
  }

INFCORE_FINISH_FOR(baseline, )
#if defined(__x86_64__)
INFCORE_FINISH_FOR(avx2, [[gnu::target("avx2")]])
#if defined(__clang__)  // which knows the preference as a flag of the whole file only
#define INFCORE_AVX512 "avx512f,avx512dq,avx512bw,avx512vl"
#else
#define INFCORE_AVX512 "avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512"
#endif
INFCORE_FINISH_FOR(avx512, [[gnu::target(INFCORE_AVX512)]])
#undef INFCORE_AVX512
#endif
#undef INFCORE_FINISH_FOR

struct Loops {
  decltype(&least_baseline) least;
  decltype(&cost_baseline) cost;
  decltype(&fewer_baseline) fewer;
};

const Loops loops = [] {
  switch (base::isa()) {
#if defined(__x86_64__)
    case base::Isa::avx512:
      return Loops{least_avx512, cost_avx512, fewer_avx512};
    case base::Isa::avx2:
      return Loops{least_avx2, cost_avx2, fewer_avx2};
#endif
    default:
      return Loops{least_baseline, cost_baseline, fewer_baseline};
  }
}();

}  // namespace

LeastAlone least_alone(const contracts::BatchColumns& curves, const std::uint64_t* mask, std::uint32_t n_nodes,
                       float work) noexcept {
  return loops.least(curves, mask, n_nodes, work);
}

LeastCost least_cost(const FinishColumns& columns, const float* usd_per_s, const std::uint64_t* mask,
                     std::uint32_t n_nodes, const CostQuery& query) noexcept {
  return loops.cost(columns, usd_per_s, mask, n_nodes, query);
}

bool finish_fewer(const FinishColumns& columns, const std::uint64_t* mask, std::uint32_t n_nodes,
                  const FinishQuery& query, float t_s, std::uint32_t n_enough) noexcept {
  return loops.fewer(columns, mask, n_nodes, query, t_s, n_enough);
}

}  // namespace infcore::engine
