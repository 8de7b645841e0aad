// Candidates as the fleet changes: the k-th, the one with the fewest in flight, the pairs drawn from them; and what
// peak_ewma keeps of a node whose id is reused.
#include <infcore/contracts/latency_table.hpp>
#include <infcore/route/routing_policy.hpp>
#include <infcore/route/two_choices.hpp>

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace infcore::route {
namespace {

struct Rig {
  explicit Rig(std::uint32_t n) : fleet(n), latency(n, 4), view(fleet, latency), model(fleet.model_id("m", 1)) {
    for (std::uint32_t i = 0; i < n; ++i) add(std::to_string(i));
  }
  NodeId add(const std::string& name) {
    NodeSpec spec;
    spec.name = name;
    const NodeId node = fleet.add(spec);
    fleet.load_model(node, model);
    return node;
  }
  RouteQuery query(base::TimeNs now_ns = 0) const { return {.model = model, .now_ns = now_ns}; }

  Fleet fleet;
  contracts::LatencyTable latency;
  RouteView view;
  ModelId model;
};

TEST(RouteView, NumbersItsCandidates) {
  Rig rig(200);
  for (std::uint32_t i = 0; i < 200; ++i)
    if (i % 7 == 3 || (i >= 64 && i < 128)) rig.fleet.drain(NodeId{i});
  ASSERT_TRUE(rig.view.filter(rig.query()));
  std::uint32_t k = 0;
  for (NodeId node = rig.view.next_candidate(0); node != base::no_node; node = rig.view.next_candidate(node.value + 1))
    EXPECT_EQ(rig.view.candidate(k++), node);
  EXPECT_EQ(rig.view.n_candidates(), k);
  EXPECT_EQ(k, 200u - 64u - 20u);
}

/// Whatever changes who is a candidate, or how many requests are in flight, the next call sees it: as if asked anew.
TEST(RouteView, WhatItKeepsOfCandidatesFollowsTheFleet) {
  constexpr std::uint32_t n = 300;
  Rig rig(n);
  const ModelId other = rig.fleet.model_id("other", 1);
  std::mt19937 random(5);
  const auto some_node = [&] { return NodeId{static_cast<std::uint32_t>(random() % n)}; };
  for (int step = 0; step < 1200; ++step) {
    const NodeId node = some_node();
    const bool there = rig.fleet.state(node) != NodeState::absent;
    switch (random() % 8) {
      case 0:
        if (there) rig.fleet.set_state(node, random() % 2 == 0 ? NodeState::up : NodeState::ejected);
        break;
      case 1:
        if (there && random() % 4 == 0 && rig.fleet.inflight(node) == 0) rig.fleet.remove(node);
        break;
      case 2:
        if (there) random() % 2 == 0 ? rig.fleet.unload_model(node, rig.model) : rig.fleet.load_model(node, other);
        break;
      case 3:
        if (there) rig.fleet.load_model(node, rig.model);
        break;
      default:
        for (int k = 0; k < 3; ++k)
          if (const NodeId to = some_node(); rig.fleet.state(to) != NodeState::absent) rig.fleet.reserve(to, 0.001);
    }
    if (step % 50 == 0 && rig.fleet.n_present() < n) rig.add("again " + std::to_string(step));
    for (const ModelId model : {rig.model, other}) {
      std::vector<NodeId> passing;
      NodeId fewest = base::no_node;
      for (NodeId each{0}; each.value < rig.fleet.n_nodes(); ++each.value) {
        if (rig.fleet.state(each) != NodeState::up || !rig.fleet.resident(each, model)) continue;
        passing.push_back(each);
        if (fewest == base::no_node || rig.fleet.inflight(each) < rig.fleet.inflight(fewest)) fewest = each;
      }
      ASSERT_EQ(rig.view.filter({.model = model}), !passing.empty());
      if (passing.empty()) continue;
      ASSERT_EQ(rig.view.n_candidates(), passing.size());
      for (const std::size_t k : {std::size_t{0}, passing.size() / 3, passing.size() - 1})
        ASSERT_EQ(rig.view.candidate(static_cast<std::uint32_t>(k)), passing[k]) << step;
      ASSERT_EQ(rig.view.least_inflight(), fewest) << step;
    }
  }
}

TEST(TwoChoices, DrawsEveryPairAlike) {
  constexpr std::uint32_t n = 9, rounds = 2000;
  Rig rig(n);
  TwoChoices choices(11);
  ASSERT_TRUE(rig.view.filter(rig.query()));
  std::vector<std::uint32_t> counts(n * n);
  for (std::uint32_t i = 0; i < rounds * n * (n - 1) / 2; ++i) {
    const auto [low, high] = choices.draw(rig.view);
    ASSERT_LT(low, high);
    ++counts[low.value * n + high.value];
  }
  for (std::uint32_t low = 0; low < n; ++low)
    for (std::uint32_t high = low + 1; high < n; ++high)
      EXPECT_NEAR(counts[low * n + high], rounds, 5 * std::sqrt(rounds));
}

TEST(PeakEwma, AnOutcomeThatComesAfterItsNodeIsNotTheNextOnes) {
  Rig rig(2);
  const auto policy = make_routing_policy("peak_ewma", 1);
  policy->attach(rig.fleet);
  EXPECT_EQ(policy->select(rig.query(), rig.view), NodeId{0});
  rig.fleet.remove(NodeId{0});
  ASSERT_EQ(rig.add("other"), NodeId{0});
  policy->observe({NodeId{0}, rig.model, 1, 100.0, true});  // of the node that was 0
  EXPECT_EQ(policy->select(rig.query(), rig.view), NodeId{0});
  policy->observe({NodeId{0}, rig.model, 1, 100.0, true});
  EXPECT_EQ(policy->select(rig.query(), rig.view), NodeId{1});
}

}  // namespace
}  // namespace infcore::route
