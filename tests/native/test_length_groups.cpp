// The cut into groups against every cut there is, its bounds, and that it allocates nothing once built.
#include <infcore/batch/length_groups.hpp>

#include "counted_new.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace infcore::batch {
namespace {

using contracts::BatchShape;
using contracts::Curve;

/// The least seconds over every cut of works that are in order already: each bit says whether a group ends there.
double least_of_every_cut(const std::vector<double>& works, const Curve& curve, std::uint32_t max_batch_size) {
  double least = std::numeric_limits<double>::infinity();
  const std::size_t n = works.size();
  for (unsigned cuts = 0; cuts < 1u << (n - 1); ++cuts) {
    double seconds = 0.0;
    bool fits = true;
    BatchShape shape;
    for (std::size_t i = 0; i < n; ++i) {
      shape.add(works[i]);
      if (i + 1 < n && (cuts >> i & 1u) == 0) continue;
      fits = fits && shape.n_requests <= max_batch_size;
      seconds += curve.service_s(shape);
      shape = {};
    }
    if (fits && seconds < least) least = seconds;
  }
  return least;
}

TEST(LengthGroups, AsCheapAsTheCheapestCut) {
  std::mt19937 draw(1);
  std::uniform_real_distribution<double> unit(0.0, 1.0);
  LengthGroups groups(12);
  std::uint32_t least_groups = 12, most_groups = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<double> works(1 + draw() % 12);
    for (double& work : works) work = draw() % 4 == 0 ? 3.0 : 100.0 * unit(draw);
    const Curve curve{unit(draw) * 1e-2, 1e-4, 1e-5, draw() % 4 == 0 ? 0.0 : unit(draw) * 1e-4};
    const auto max_batch_size = static_cast<std::uint32_t>(1 + draw() % 13);
    groups.split(works, curve, max_batch_size);
    std::vector<bool> seen(works.size());
    double last = 0.0;
    for (std::uint32_t g = 0; g < groups.n_groups(); ++g) {
      ASSERT_GE(groups.group(g).size(), 1u);
      ASSERT_LE(groups.group(g).size(), max_batch_size);
      for (const std::uint32_t row : groups.group(g)) {
        ASSERT_FALSE(seen[row]);
        seen[row] = true;
        ASSERT_GE(works[row], last);
        last = works[row];
      }
    }
    ASSERT_EQ(std::accumulate(seen.begin(), seen.end(), std::size_t{0}), works.size());
    std::sort(works.begin(), works.end());
    ASSERT_NEAR(groups.seconds(), least_of_every_cut(works, curve, max_batch_size), 1e-12);
    least_groups = std::min(least_groups, groups.n_groups());
    most_groups = std::max(most_groups, groups.n_groups());
  }
  EXPECT_EQ(least_groups, 1u);  // the draw reaches both ends
  EXPECT_GE(most_groups, 6u);
}

TEST(LengthGroups, EqualSecondsAreTheFewestGroups) {
  LengthGroups groups(1024);
  const std::vector<double> alike(1024, 7.0);
  groups.split(alike, {.per_padded_work_s = 0.5}, 4096);
  EXPECT_EQ(groups.n_groups(), 1u);
  groups.split(alike, {.per_padded_work_s = 0.5}, 1000);
  ASSERT_EQ(groups.n_groups(), 2u);
  EXPECT_EQ(groups.group(1).size(), 1000u);
  EXPECT_EQ(groups.group(0)[3], 3u);
  const std::vector<double> nothing(5, 0.0);
  groups.split(nothing, {}, 5);
  EXPECT_EQ(groups.n_groups(), 1u);
}

TEST(LengthGroups, AllocatesNothingOnceBuilt) {
  LengthGroups groups(1024);
  std::vector<double> works(1024);
  std::mt19937 draw(2);
  for (double& work : works) work = static_cast<double>(draw() % 512);
  const std::size_t before = n_allocations;
  groups.split(works, {.base_s = 1e-3, .per_padded_work_s = 1e-6}, 64);
  EXPECT_EQ(n_allocations, before);
  EXPECT_GE(groups.n_groups(), 16u);
}

}  // namespace
}  // namespace infcore::batch
