#include <infcore/base/isa.hpp>
#include <infcore/route/score.hpp>
#include <limits>

namespace infcore::route {
namespace {

constexpr std::uint32_t lanes = 16;
constexpr std::uint32_t lane_bit[lanes] = {1u << 0,  1u << 1,  1u << 2,  1u << 3, 1u << 4,  1u << 5,
                                           1u << 6,  1u << 7,  1u << 8,  1u << 9, 1u << 10, 1u << 11,
                                           1u << 12, 1u << 13, 1u << 14, 1u << 15};

[[gnu::always_inline]] inline float score_body(const ScoreColumns& columns, const ScoreQuery& query,
                                               const std::uint64_t* __restrict mask, std::uint32_t n_nodes,
                                               float* __restrict cost_us) noexcept {
  constexpr float none = std::numeric_limits<float>::infinity();
  float least = none;
  for (std::uint32_t first = 0; first < n_nodes; first += lanes) {
    const auto bits = static_cast<std::uint32_t>(mask[first / 64] >> (first % 64)) & 0xFFFFu;
#pragma omp simd reduction(min : least)
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      const NodeScore node = NodeScore::of(columns, query, first + lane);
      const bool out = (bits & lane_bit[lane]) == 0 || node.upper_us > query.budget_us;
      const float cost = out ? none : node.cost_us;
      cost_us[first + lane] = cost;
      least = cost < least ? cost : least;
    }
  }
  return least;
}

using Score = float (*)(const ScoreColumns&, const ScoreQuery&, const std::uint64_t*, std::uint32_t, float*) noexcept;

float score_baseline(const ScoreColumns& c, const ScoreQuery& q, const std::uint64_t* mask, std::uint32_t n,
                     float* cost_us) noexcept {
  return score_body(c, q, mask, n, cost_us);
}

#if defined(__x86_64__)
// Without fma in the target list no compiler can fuse, so the three agree to the bit.
[[gnu::target("avx2")]] float score_avx2(const ScoreColumns& c, const ScoreQuery& q, const std::uint64_t* mask,
                                         std::uint32_t n, float* cost_us) noexcept {
  return score_body(c, q, mask, n, cost_us);
}

[[gnu::target("avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512")]] float score_avx512(
    const ScoreColumns& c, const ScoreQuery& q, const std::uint64_t* mask, std::uint32_t n, float* cost_us) noexcept {
  return score_body(c, q, mask, n, cost_us);
}
#endif

Score chosen() noexcept {
  switch (base::isa()) {
#if defined(__x86_64__)
    case base::Isa::avx512:
      return score_avx512;
    case base::Isa::avx2:
      return score_avx2;
#endif
    default:
      return score_baseline;
  }
}

}  // namespace

float score(const ScoreColumns& columns, const ScoreQuery& query, const std::uint64_t* mask, std::uint32_t n_nodes,
            float* cost_us) noexcept {
  static const Score best = chosen();
  return best(columns, query, mask, n_nodes, cost_us);
}

}  // namespace infcore::route
