#pragma once
#include <infcore/base/column.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace infcore::cache {

/// How often keys were asked for of late, about: a count-min sketch of counters up to 15, four for each key, all in one
/// line of memory; every ten counts an entry they are halved. Never too low but for the halving. Single-threaded; O(1);
/// allocates in grow() only. Source: Einziger, Friedman, Manes, ACM Transactions on Storage 13(4), 2017.
class FrequencySketch {
 public:
  static constexpr std::uint8_t count_max = 15;

  /// From now on for so many entries, not less than before; what it counted stays.
  void grow(std::uint32_t n_entries) {
    const std::size_t n_before = lines_.size();
    const std::size_t n_lines = std::bit_ceil((std::size_t{n_entries} + entries_a_line - 1) / entries_a_line);
    lines_.grow(std::max(n_before, n_lines));
    // A key's line is told by more bits now; either has its counts.
    for (std::size_t at = n_before; n_before > 0 && at < lines_.size(); ++at) lines_[at] = lines_[at & (n_before - 1)];
  }

  void add(std::uint64_t key) noexcept {
    const std::uint64_t stirred = stir(key);
    Line& line = lines_[stirred & (lines_.size() - 1)];
    for (std::uint32_t row = 0; row < n_rows; ++row) {
      std::uint8_t& count = line[counter(stirred, row)];
      count = static_cast<std::uint8_t>(count + (count < count_max ? 1 : 0));
    }
    if (++n_added_ >= lines_.size() * entries_a_line * counts_an_entry) halve();
  }

  [[nodiscard]] std::uint8_t count(std::uint64_t key) const noexcept {
    const std::uint64_t stirred = stir(key);
    const Line& line = lines_[stirred & (lines_.size() - 1)];
    std::uint8_t least = count_max;
    for (std::uint32_t row = 0; row < n_rows; ++row) least = std::min(least, line[counter(stirred, row)]);
    return least;
  }

 private:
  static constexpr std::uint32_t n_rows = 4, row_counters = 16, entries_a_line = 16, counts_an_entry = 10;
  using Line = std::array<std::uint8_t, n_rows * row_counters>;

  [[nodiscard]] static std::uint64_t stir(std::uint64_t key) noexcept {
    key = (key ^ (key >> 32)) * 0x9E3779B97F4A7C15u;  // 2^64 over the golden ratio, odd
    key = (key ^ (key >> 29)) * 0xBF58476D1CE4E5B9u;  // of SplitMix64
    return key ^ (key >> 32);
  }
  /// Each row by four bits of its own, from the top: the line goes by the lowest.
  [[nodiscard]] static std::size_t counter(std::uint64_t stirred, std::uint32_t row) noexcept {
    return row * row_counters + ((stirred >> (60 - 4 * row)) & (row_counters - 1));
  }

  void halve() noexcept {
    n_added_ /= 2;
    for (Line& line : lines_) {
      for (std::uint8_t& count : line) count = static_cast<std::uint8_t>(count >> 1);
    }
  }

  base::Column<Line> lines_;  ///< a power of two
  std::uint64_t n_added_{};
};

}  // namespace infcore::cache
