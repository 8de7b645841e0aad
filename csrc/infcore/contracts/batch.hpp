#pragma once
#include <algorithm>
#include <cstdint>

namespace infcore::contracts {

/// What the latency model needs to know of a batch: how many, how much work in all, and the largest, since a padded
/// batch costs n * max(work).
struct BatchShape {
  std::uint32_t n_requests{};
  double work_sum{};
  double work_max{};

  constexpr void add(double work) noexcept {
    ++n_requests;
    work_sum += work;
    work_max = std::max(work_max, work);
  }
};

}  // namespace infcore::contracts
