#pragma once
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
  explicit TwoChoices(std::uint64_t seed) noexcept : state_(seed) {}

  struct Pair {
    NodeId low, high;  ///< by id; equal where there is one candidate, which draws nothing
  };

  /// Precondition: filter() of the view found a candidate. O(nodes / 64).
  [[nodiscard]] Pair draw(const RouteView& view) noexcept {
    const std::uint32_t n = view.n_candidates();
    if (n == 1) return {view.candidate(0), view.candidate(0)};
    const std::uint64_t random = next();
    const std::uint32_t first = scaled(random >> 32, n);
    const std::uint32_t other = scaled(random & 0xFFFF'FFFFu, n - 1);
    const std::uint32_t second = other + (other >= first ? 1u : 0u);
    return {view.candidate(std::min(first, second)), view.candidate(std::max(first, second))};
  }

 private:
  std::uint64_t next() noexcept {  // SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195)
    std::uint64_t z = state_ += 0x9E37'79B9'7F4A'7C15u;
    z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9u;
    z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EBu;
    return z ^ (z >> 31);
  }
  /// Of 32 random bits: uniform in [0, n).
  static std::uint32_t scaled(std::uint64_t bits, std::uint32_t n) noexcept {
    return static_cast<std::uint32_t>(bits * n >> 32);
  }

  std::uint64_t state_;
};

}  // namespace infcore::route
