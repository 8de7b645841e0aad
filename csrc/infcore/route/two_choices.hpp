#pragma once
#include <infcore/base/draw.hpp>
#include <infcore/route/route_view.hpp>

#include <algorithm>
#include <cstdint>

namespace infcore::route {

/// Two different candidates at random, every pair alike. Owns its generator: same seed and candidates, same pairs.
///
/// One draw of 64 bits a pair, its halves scaled to n and to n - 1 (the second skips the first, so that none is drawn
/// twice). Scaling 32 bits favours some of 10,000 candidates by 2e-6 of their share at most.
class TwoChoices {
 public:
  explicit TwoChoices(std::uint64_t seed) noexcept : draw_(seed) {}

  struct Pair {
    NodeId low, high;  ///< by id; equal where there is one candidate, which draws nothing
  };

  /// Precondition: filter() of the view found a candidate. Costs what its candidate() does.
  [[nodiscard]] Pair draw(const RouteView& view) noexcept {
    const std::uint32_t n = view.n_candidates();
    if (n == 1) return {view.candidate(0), view.candidate(0)};
    const std::uint64_t random = draw_.bits();
    const std::uint32_t first = scaled(random >> 32, n);
    const std::uint32_t other = scaled(random & 0xFFFF'FFFFu, n - 1);
    const std::uint32_t second = other + (other >= first ? 1u : 0u);
    return {view.candidate(std::min(first, second)), view.candidate(std::max(first, second))};
  }

 private:
  /// Of 32 random bits: uniform in [0, n).
  static std::uint32_t scaled(std::uint64_t bits, std::uint32_t n) noexcept {
    return static_cast<std::uint32_t>(bits * n >> 32);
  }

  base::Draw draw_;
};

}  // namespace infcore::route
