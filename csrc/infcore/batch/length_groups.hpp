#pragma once
#include <infcore/contracts/latency.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace infcore::batch {

/// Splits the rows of one batch into groups of like work that run one after the other, so that the curve's seconds of
/// all groups together are the least: 32 ragged texts, padded to the longest, may take twice as long as one by one, and
/// four groups of like length less than either.
///
/// Exact over every way to group. A split changes two terms only, base_s for each group and
/// per_padded_work_s * n * max(work); and among groups of given sizes none are cheaper than those cut from the rows in
/// order of their work, since cutting so lowers no group below its size and raises no group's longest row. So the best
/// cut before each row, over the best before the cut, is the best of all.
///
/// Equal seconds: the fewest groups, then the larger last one. Rows of equal work keep their order.
/// Cost: n log n to sort, n * min(n, max_batch_size) additions; tests/native/test_length_groups.cpp counts no
/// allocation after construction. One caller at a time; no clock, no libm.
class LengthGroups {
 public:
  /// Room for batches of n_rows_max rows.
  explicit LengthGroups(std::uint32_t n_rows_max);

  /// works: one per row, finite and >= 0. Precondition: 1 <= works.size() <= n_rows_max(), max_batch_size >= 1. What it
  /// finds is in groups(), group() and seconds() until the next call.
  void split(std::span<const double> works, const contracts::Curve& curve, std::uint32_t max_batch_size) noexcept;

  [[nodiscard]] std::uint32_t n_rows_max() const noexcept { return static_cast<std::uint32_t>(sorted_.size()); }
  [[nodiscard]] std::uint32_t n_groups() const noexcept { return n_groups_; }
  /// Rows of group g by their index in works, least work first; groups likewise.
  [[nodiscard]] std::span<const std::uint32_t> group(std::uint32_t g) const noexcept {
    return {order_.data() + bounds_[g], order_.data() + bounds_[g + 1]};
  }
  /// The curve's seconds of all groups together.
  [[nodiscard]] double seconds() const noexcept { return seconds_; }

 private:
  /// Of the first rows in order of work: the least seconds that their split adds, in how many groups, where the last of
  /// them begins.
  struct Best {
    double cost_s{};
    std::uint32_t n_groups{};
    std::uint32_t last_from{};
  };

  std::vector<std::uint32_t> order_;
  std::vector<std::uint32_t> bounds_;
  std::vector<double> sorted_;
  std::vector<Best> best_;  ///< best_[j]: of the first j rows
  std::uint32_t n_groups_{};
  double seconds_{};
};

}  // namespace infcore::batch
