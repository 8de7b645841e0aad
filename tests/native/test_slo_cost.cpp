// slo_cost where nodes hold a part of the prompt, or would have to load the model first.
#include <infcore/base/errors.hpp>
#include <infcore/route/router.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

namespace infcore::route {
namespace {

struct Rig {
  explicit Rig(std::uint32_t n, std::uint64_t memory_bytes = 0) : fleet(n), model(fleet.model_id("m", 1)) {
    for (std::uint32_t i = 0; i < n; ++i) {
      NodeSpec spec;
      spec.name = std::to_string(i);
      spec.memory_bytes = memory_bytes;
      fleet.add(spec);
    }
  }
  std::vector<Explanation> explain(Router& router, const RouteQuery& query) {
    std::vector<Explanation> explanations;
    router.explain(query, {}, explanations);
    return explanations;
  }
  Fleet fleet;
  ModelId model;
};

std::vector<std::uint64_t> blocks_of(std::size_t n, std::uint64_t first) {
  std::vector<std::uint64_t> blocks(n);
  std::iota(blocks.begin(), blocks.end(), first);
  return blocks;
}

TEST(SloCost, WhoHoldsThePromptSavesItsWork) {
  Rig rig(3);
  for (std::uint32_t i = 0; i < 3; ++i) rig.fleet.load_model(NodeId{i}, rig.model);
  Router router(rig.fleet, "slo_cost", 0);
  for (std::uint32_t i = 0; i < 3; ++i) router.set_prior(rig.model, NodeId{i}, {.base_s = 1e-3, .per_work_s = 1e-4});
  const std::vector<std::uint64_t> blocks = blocks_of(10, 1000);
  router.with_prefix([&](PrefixIndex& prefix) { prefix.stored(NodeId{2}, std::span(blocks).first(8)); });
  const RouteQuery query{.model = rig.model, .work = 160.0, .blocks = blocks};
  Decision decision;
  router.pick(query, {}, decision);
  EXPECT_EQ(decision.node, NodeId{2});
  EXPECT_NEAR(decision.terms.saving_us, 8 * 16 * 100.0, 0.01);
  EXPECT_NEAR(decision.terms.saved_work, 128.0, 1e-6);
  EXPECT_NEAR(decision.terms.cost_us, 1000.0 + 32 * 100.0, 0.01);
  EXPECT_NEAR(rig.fleet.wait_s(NodeId{2}), 0.0042, 1e-6) << "what it has to do is reserved, not what it holds";
  const auto explained = rig.explain(router, query);
  EXPECT_EQ(explained[0].terms.saving_us, 0.0);
  EXPECT_NEAR(explained[2].terms.saving_us, 12800.0, 0.01);
  ASSERT_TRUE(router.done(decision, true, 0.0042, 0));
  EXPECT_NEAR(rig.explain(router, query)[2].terms.service_us, 17000.0, 50.0) << "learned as the work that was left";
  // A request shorter than what is held saves no more than its own work.
  const RouteQuery small{.model = rig.model, .work = 40.0, .blocks = std::span(blocks).first(8)};
  EXPECT_NEAR(rig.explain(router, small)[2].terms.saving_us, 4000.0, 5.0);
}

TEST(SloCost, AHotPrefixDoesNotOverloadItsNode) {
  Rig rig(8);
  for (std::uint32_t i = 0; i < 8; ++i) rig.fleet.load_model(NodeId{i}, rig.model);
  Router router(rig.fleet, "slo_cost", 0);
  for (std::uint32_t i = 0; i < 8; ++i) router.set_prior(rig.model, NodeId{i}, {.base_s = 1e-3, .per_work_s = 1e-4});
  const std::vector<std::uint64_t> blocks = blocks_of(10, 1);
  router.with_prefix([&](PrefixIndex& prefix) { prefix.stored(NodeId{3}, blocks); });
  std::array<std::uint32_t, 8> counts{};
  std::vector<Decision> open(64);
  for (std::size_t i = 0; i < open.size(); ++i) {  // four of five have the prefix; all wait
    RouteQuery query{.model = rig.model, .work = 160.0};
    if (i % 5 != 0) query.blocks = blocks;
    router.pick(query, {}, open[i]);
    ++counts[open[i].node.value];
  }
  double most_s = 0.0, sum_s = 0.0;
  for (std::uint32_t i = 0; i < 8; ++i) {
    most_s = std::max(most_s, rig.fleet.wait_s(NodeId{i}));
    sum_s += rig.fleet.wait_s(NodeId{i});
    EXPECT_GT(counts[i], 0u) << i;
  }
  EXPECT_LT(most_s, 1.5 * sum_s / 8) << "no node has much more to do than the others";
  EXPECT_GT(counts[3], 2 * 64u / 8) << "who holds it does more of them in that time";
}

TEST(SloCost, LoadsAModelWhereWaitingWouldCostMore) {
  Rig rig(3, 10);
  rig.fleet.load_model(NodeId{0}, rig.model);
  Router router(rig.fleet, "slo_cost", 0);
  for (std::uint32_t i = 0; i < 3; ++i) router.set_prior(rig.model, NodeId{i}, {.base_s = 0.1});
  const RouteQuery query{.model = rig.model};
  EXPECT_EQ(rig.explain(router, query)[1].filtered, Filtered::no_model) << "nobody said that it may be loaded";
  const ModelId other = rig.fleet.model_id("other", 1);
  rig.fleet.declare_model(rig.model, {.weights_bytes = 8, .load_s = 0.35});
  rig.fleet.declare_model(other, {.weights_bytes = 8, .load_s = 5.0});
  rig.fleet.load_model(NodeId{2}, other);  // would have to go first, and come back
  const auto explained = rig.explain(router, query);
  EXPECT_EQ(explained[1].filtered, Filtered::no);
  EXPECT_NEAR(explained[1].terms.load_us, 0.35e6, 1.0);
  EXPECT_NEAR(explained[2].terms.load_us, 5.35e6, 1.0);
  std::array<Decision, 5> decisions;
  for (Decision& decision : decisions) router.pick(query, {}, decision);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(decisions[i].node, NodeId{0}) << i;
  EXPECT_EQ(decisions[4].node, NodeId{1});
  EXPECT_NEAR(decisions[4].terms.load_us, 0.35e6, 1.0);
  rig.fleet.load_model(NodeId{1}, rig.model);
  EXPECT_EQ(rig.explain(router, query)[1].terms.load_us, 0.0);
  Router fastest(rig.fleet, "fastest_finish", 0);
  EXPECT_EQ(rig.explain(fastest, query)[2].filtered, Filtered::no_model) << "a policy without that term does not load";
}

TEST(SloCost, NobodyLoadsAModelToGiveANodeItsTurn) {
  Rig rig(2, 10);
  rig.fleet.load_model(NodeId{0}, rig.model);
  rig.fleet.declare_model(rig.model, {.weights_bytes = 8, .load_s = 0.001});
  RoutingOptions options;
  options.set("explore", 1.0);
  Router router(rig.fleet, "slo_cost", 0, options);
  Decision decision;
  for (int i = 0; i < 100; ++i) {
    router.pick({.model = rig.model}, {}, decision);
    EXPECT_EQ(decision.node, NodeId{0});
    router.done(decision, false, 0.0, 0);
  }
}

/// No lock on the way of a pick: each thread has its own Router, and they see each other's credit through the fleet.
TEST(SloCost, ThreadsPickWhileAnotherSignals) {
  constexpr std::uint32_t n_nodes = 40;
  Rig rig(n_nodes);
  for (std::uint32_t i = 0; i < n_nodes; ++i) rig.fleet.load_model(NodeId{i}, rig.model);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  std::array<std::uint32_t, 2> n_done{};
  for (std::uint32_t t = 0; t < 2; ++t) {
    threads.emplace_back([&rig, &n_done, t] {
      Router router(rig.fleet, "slo_cost", t);
      std::array<Decision, 4> open;
      for (int i = 0; i < 500; ++i) {
        for (Decision& each : open) router.pick({.model = rig.model, .now_ns = i}, {}, each);
        for (Decision& each : open) n_done[t] += router.done(each, true, 0.001, i) ? 1u : 0u;
      }
    });
  }
  std::thread signaller([&] {
    for (std::int64_t i = 0; !stop.load(std::memory_order_relaxed); ++i)
      rig.fleet.signal(NodeId{static_cast<std::uint32_t>(i) % n_nodes}, {.as_of_ns = i, .gpu = 0.5});
  });
  for (std::thread& thread : threads) thread.join();
  stop.store(true, std::memory_order_relaxed);
  signaller.join();
  EXPECT_EQ(n_done[0] + n_done[1], 4000u);
  for (std::uint32_t i = 0; i < n_nodes; ++i) EXPECT_EQ(rig.fleet.inflight(NodeId{i}), 0u);
}

}  // namespace
}  // namespace infcore::route
