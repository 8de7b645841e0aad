// The vectorised passes against one node at a time: every mask, every size, on whatever ISA runs (INFCORE_ISA forces
// one).
#include <infcore/engine/finish_times.hpp>

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace infcore::engine {
namespace {

constexpr std::uint32_t n_padded = 192;

struct Columns {
  explicit Columns(std::mt19937& draw)
      : free_at_s(n_padded), base_s(n_padded), per_request_s(n_padded), per_work_s(n_padded), mask(n_padded / 64) {
    std::uniform_real_distribution<float> unit(0.0f, 1.0f);
    for (std::uint32_t i = 0; i < n_padded; ++i) {
      free_at_s[i] = draw() % 3 == 0 ? free_now : 100.0 + static_cast<double>(unit(draw)) * 2.0 - 1.0;
      // Many alike, so that there are equals; some terms at the bottom of what the table gives.
      base_s[i] = draw() % 2 == 0 ? 0.25f : unit(draw);
      per_request_s[i] = draw() % 4 == 0 ? 1e-12f : 0.01f * static_cast<float>(1 + draw() % 3);
      per_work_s[i] = draw() % 2 == 0 ? 0.0f : unit(draw) * 0.1f;
      if (draw() % 4 != 0) mask[i / 64] |= std::uint64_t{1} << (i % 64);
    }
  }
  [[nodiscard]] FinishColumns view() const noexcept {
    return {free_at_s.data(), {base_s.data(), per_request_s.data(), per_work_s.data()}};
  }
  [[nodiscard]] bool in_mask(std::uint32_t node) const noexcept { return (mask[node / 64] >> (node % 64) & 1) != 0; }

  std::vector<double> free_at_s;
  std::vector<float> base_s, per_request_s, per_work_s;
  std::vector<std::uint64_t> mask;
};

TEST(FinishTimes, LeastAloneIsTheLowestOfTheFirst) {
  std::mt19937 draw(1);
  for (int round = 0; round < 500; ++round) {
    const Columns columns(draw);
    const auto n_nodes = static_cast<std::uint32_t>(draw() % n_padded + 1);
    const float work = static_cast<float>(draw() % 5);
    LeastAlone expected{std::numeric_limits<float>::infinity(), 0};
    // The mask of a fleet has no bit beyond its nodes.
    std::vector<std::uint64_t> mask = columns.mask;
    for (std::uint32_t i = n_nodes; i < n_padded; ++i) mask[i / 64] &= ~(std::uint64_t{1} << (i % 64));
    for (std::uint32_t i = 0; i < n_nodes; ++i) {
      const float alone_s = NodeFinish::of(0.0f, columns.view().curves, i, work).batch_s(1.0f);
      if (columns.in_mask(i) && alone_s < expected.seconds) expected = {alone_s, i};
    }
    const LeastAlone least = least_alone(columns.view().curves, mask.data(), n_nodes, work);
    ASSERT_EQ(least.seconds, expected.seconds);
    ASSERT_EQ(least.node, expected.node);
  }
  const Columns columns(draw);
  const std::vector<std::uint64_t> nobody(n_padded / 64);
  EXPECT_EQ(least_alone(columns.view().curves, nobody.data(), n_padded, 1.0f).seconds,
            std::numeric_limits<float>::infinity());
}

TEST(FinishTimes, FewerIsWhatTheNodesSumTo) {
  std::mt19937 draw(2);
  for (int round = 0; round < 2000; ++round) {
    const Columns columns(draw);
    const float n_requests = static_cast<float>(draw() % 500 + 1);
    const FinishQuery query{100.0, static_cast<float>(draw() % 3), static_cast<float>(1u << draw() % 8), n_requests};
    const float t_s = static_cast<float>(draw() % 1000) * 0.004f;  // some have time for several full batches
    double n = 0.0;
    for (std::uint32_t i = 0; i < n_padded; ++i) {
      if (!columns.in_mask(i)) continue;
      const float free_in_s = NodeFinish::free_in(columns.free_at_s[i], query.now_s);
      n += static_cast<double>(NodeFinish::of(free_in_s, columns.view().curves, i, query.work_mean).n_by(t_s, query));
    }
    for (const double by : {-1.0, 0.0, 1.0}) {
      if (n + by < 1.0) continue;
      const auto n_enough = static_cast<std::uint32_t>(n + by);
      ASSERT_EQ(finish_fewer(columns.view(), columns.mask.data(), n_padded, query, t_s, n_enough), by > 0.0)
          << n << " of " << n_enough << " by " << t_s;
    }
  }
}

}  // namespace
}  // namespace infcore::engine
