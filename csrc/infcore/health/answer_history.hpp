#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace infcore::health {

/// Yes or no of a node's last answers, at most 64 of them.
struct AnswerHistory {
  std::uint64_t bits{};  ///< the newest is the lowest
  std::uint32_t n{};

  void add(bool bit) noexcept {
    bits = bits << 1 | (bit ? 1u : 0u);
    n = std::min(n + 1, 64u);
  }
  /// Of the last `most`, 1 to 64.
  [[nodiscard]] std::uint32_t count(std::uint32_t most) const noexcept {
    return static_cast<std::uint32_t>(std::popcount(bits & (~std::uint64_t{0} >> (64 - most))));
  }
};

/// Yes or no of the last 64 answers of many nodes: what a node's own are held against.
class PeerHistory {
 public:
  void add(std::uint32_t node, bool bit) noexcept {
    entries_[next_] = node << 1 | (bit ? 1u : 0u);
    next_ = (next_ + 1) % size;
    n_ = std::min(n_ + 1, size);
  }
  /// Share of yes among those of other nodes; `n` is how many they are.
  [[nodiscard]] double share_without(std::uint32_t node, std::uint32_t& n) const noexcept {
    std::uint32_t n_yes = 0;
    n = 0;
    for (std::uint32_t i = 0; i < n_; ++i) {
      if (entries_[i] >> 1 == node) continue;
      ++n;
      n_yes += entries_[i] & 1u;
    }
    return n == 0 ? 0.0 : static_cast<double>(n_yes) / n;
  }
  /// The same among those that came since the node's last `n_own` answers began.
  [[nodiscard]] double share_beside(std::uint32_t node, std::uint32_t n_own, std::uint32_t& n) const noexcept {
    std::uint32_t n_yes = 0;
    n = 0;
    for (std::uint32_t i = 1; i <= n_ && n_own > 0; ++i) {
      const std::uint32_t entry = entries_[(next_ + size - i) % size];
      const bool is_own = entry >> 1 == node;
      n_own -= is_own ? 1 : 0;
      n += is_own ? 0 : 1;
      n_yes += is_own ? 0 : entry & 1u;
    }
    return n == 0 ? 0.0 : static_cast<double>(n_yes) / n;
  }

 private:
  static constexpr std::uint32_t size = 64;
  std::array<std::uint32_t, size> entries_{};
  std::uint32_t next_{}, n_{};
};

}  // namespace infcore::health
