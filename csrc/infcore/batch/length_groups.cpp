#include <infcore/batch/length_groups.hpp>

#include <algorithm>

namespace infcore::batch {

LengthGroups::LengthGroups(std::uint32_t n_rows_max)
    : order_(n_rows_max), bounds_(n_rows_max + 1), sorted_(n_rows_max), best_(n_rows_max + 1) {}

void LengthGroups::split(std::span<const double> works, const contracts::Curve& curve,
                         std::uint32_t max_batch_size) noexcept {
  const auto n = static_cast<std::uint32_t>(works.size());
  for (std::uint32_t i = 0; i < n; ++i) order_[i] = i;
  std::sort(order_.begin(), order_.begin() + n,
            [&](std::uint32_t a, std::uint32_t b) { return works[a] < works[b] || (works[a] == works[b] && a < b); });
  for (std::uint32_t i = 0; i < n; ++i) sorted_[i] = works[order_[i]];

  best_[0] = {};
  for (std::uint32_t end = 1; end <= n; ++end) {
    const double work_max = sorted_[end - 1];
    Best best{};
    for (std::uint32_t from = end > max_batch_size ? end - max_batch_size : 0; from < end; ++from) {
      const double padded = static_cast<double>(end - from) * work_max;
      const double cost_s = best_[from].cost_s + (curve.base_s + curve.per_padded_work_s * padded);
      const std::uint32_t n_groups = best_[from].n_groups + 1;
      if (best.n_groups == 0 || cost_s < best.cost_s || (cost_s == best.cost_s && n_groups < best.n_groups)) {
        best = {cost_s, n_groups, from};
      }
    }
    best_[end] = best;
  }

  n_groups_ = best_[n].n_groups;
  bounds_[n_groups_] = n;
  for (std::uint32_t g = n_groups_; g-- > 0;) bounds_[g] = best_[bounds_[g + 1]].last_from;
  seconds_ = 0.0;
  for (std::uint32_t g = 0; g < n_groups_; ++g) {
    contracts::BatchShape shape;
    for (std::uint32_t i = bounds_[g]; i < bounds_[g + 1]; ++i) shape.add(sorted_[i]);
    seconds_ += curve.service_s(shape);
  }
}

}  // namespace infcore::batch
