// Who is ejected and who is not: the tracker alone, and the gate that carries out on a fleet what it says.
#include <infcore/base/draw.hpp>
#include <infcore/base/errors.hpp>
#include <infcore/health/health_tracker.hpp>
#include <infcore/route/health_gate.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace infcore::health {
namespace {

using base::ModelId;
using base::NodeId;
using base::TimeNs;
using contracts::EjectedFor;
using contracts::HealthConfig;
using contracts::HealthStage;
using route::NodeState;

constexpr TimeNs second = 1'000'000'000;

/// A fleet of equal nodes that hold one model; each answer is learned as a router would.
struct Rig {
  route::Fleet fleet;
  contracts::LatencyTable table;
  route::HealthGate gate;
  TimeNs now_ns{};
  base::Draw draw{7};

  explicit Rig(std::uint32_t n_nodes, const HealthConfig& config = {})
      : fleet(n_nodes), table(n_nodes, fleet.max_models()), gate(fleet, make_health_tracker(fleet.columns(), config)) {
    for (std::uint32_t n = 0; n < n_nodes; ++n) {
      fleet.add({.name = "n" + std::to_string(n)});
      table.set_class(NodeId{n}, fleet.kind_id(NodeId{n}));
      fleet.load_model(NodeId{n}, fleet.model_id("m", 1));
    }
    gate.follow(now_ns);
  }

  void answer(std::uint32_t node, double service_s, bool ok = true) {
    now_ns += 10'000'000;
    gate.tick(now_ns);
    gate.follow(now_ns);
    gate.answered(now_ns, {NodeId{node}, fleet.model_id("m", 1), {1, 1.0, 1.0}, service_s, ok}, table);
    if (ok) table.observe(fleet.model_id("m", 1), NodeId{node}, {1, 1.0, 1.0}, service_s);
  }
  /// A round of answers of every node that is up; node 0 takes `factor` times as long.
  void round(double factor, std::uint32_t n_slow = 1) {
    for (std::uint32_t n = 0; n < fleet.n_nodes(); ++n) {
      if (state(n) == NodeState::up) answer(n, 0.01 * (0.9 + 0.2 * draw.uniform()) * (n < n_slow ? factor : 1.0));
    }
  }
  NodeState state(std::uint32_t node) const { return fleet.state(NodeId{node}); }
  contracts::HealthStatus status(std::uint32_t node) { return gate.status(NodeId{node}); }
  std::uint32_t n_out() const {
    std::uint32_t n = 0;
    for (std::uint32_t i = 0; i < fleet.n_nodes(); ++i) n += state(i) == NodeState::ejected ? 1 : 0;
    return n;
  }
};

TEST(Health, ANodeTenTimesSlowerThanBeforeIsOutWithinFiftyAnswersAndComesBack) {
  Rig rig(6);
  for (int i = 0; i < 100; ++i) rig.round(1.0);
  int n_answers = 0;
  for (; rig.state(0) == NodeState::up && n_answers < 50; ++n_answers) rig.round(10.0);
  EXPECT_EQ(rig.state(0), NodeState::ejected);
  EXPECT_EQ(n_answers, 8);
  EXPECT_EQ(rig.status(0).why, EjectedFor::slowed_down);
  EXPECT_NE(rig.gate.why_out().find("'n0' is ejected for having slowed down, until"), std::string::npos);
  EXPECT_EQ(rig.n_out(), 1u);
  const TimeNs until_ns = rig.status(0).until_ns;
  while (rig.now_ns < until_ns) rig.round(1.0);
  rig.round(1.0);
  EXPECT_EQ(rig.state(0), NodeState::up);
  EXPECT_EQ(rig.gate.n_restarts(NodeId{0}), 1u);
  for (int i = 0; i < 3; ++i) rig.round(1.0);
  EXPECT_EQ(rig.status(0).stage, HealthStage::slow_start);
  for (int i = 0; i < 100; ++i) rig.round(1.0);
  EXPECT_EQ(rig.status(0).stage, HealthStage::well);
}

TEST(Health, ANodeThatIsSlowerFromItsFirstAnswersOnIsOutToo) {
  Rig rig(6);
  int n_answers = 0;
  for (; rig.state(0) == NodeState::up && n_answers < 50; ++n_answers) rig.round(10.0);
  EXPECT_EQ(rig.state(0), NodeState::ejected);
  EXPECT_EQ(rig.status(0).why, EjectedFor::slower_than_class);
  // Still as slow: each probe puts it out for longer.
  TimeNs before_ns = 0;
  for (int n = 0; n < 3; ++n) {
    while (rig.state(0) == NodeState::ejected) rig.round(10.0);
    while (rig.state(0) == NodeState::up) rig.round(10.0);
    EXPECT_GT(rig.status(0).until_ns - rig.now_ns, before_ns * 3 / 2);
    before_ns = rig.status(0).until_ns - rig.now_ns;
  }
}

TEST(Health, AThirdOfTheSpeedIsStillOfUse) {
  Rig rig(6);
  for (int i = 0; i < 100; ++i) rig.round(1.0);
  for (int i = 0; i < 300; ++i) rig.round(3.0);
  EXPECT_EQ(rig.n_out(), 0u);
}

TEST(Health, AClassThatIsSlowAsAWholeStays) {
  Rig rig(6);
  for (int i = 0; i < 100; ++i) rig.round(1.0);
  for (int i = 0; i < 300; ++i) rig.round(10.0, 6);
  for (int i = 0; i < 300; ++i) rig.round(1.0);
  EXPECT_EQ(rig.n_out(), 0u);
  EXPECT_EQ(rig.status(0).n_ejections, 0u);
}

TEST(Health, UnlikeMachinesInOneClassStay) {
  Rig rig(9);
  for (int i = 0; i < 400; ++i) rig.round(12.0, 4);
  EXPECT_EQ(rig.n_out(), 0u);
  // And one of them that slows down against what it was does not.
  for (int i = 0; i < 50 && rig.state(0) == NodeState::up; ++i) {
    for (std::uint32_t n = 1; n < 9; ++n) rig.answer(n, n < 4 ? 0.12 : 0.01);
    rig.answer(0, 1.2);
  }
  EXPECT_EQ(rig.state(0), NodeState::ejected);
}

TEST(Health, APairHasNoNormFromTheStartButOneThatSlowsDownIsSeen) {
  Rig rig(2);
  for (int i = 0; i < 200; ++i) rig.round(10.0);
  EXPECT_EQ(rig.n_out(), 0u);
  Rig other(2);
  for (int i = 0; i < 100; ++i) other.round(1.0);
  for (int i = 0; i < 50; ++i) other.round(10.0);
  EXPECT_EQ(other.state(0), NodeState::ejected);
}

TEST(Health, ErrorsInARowAreTheNodesWhereItsPeersHaveNone) {
  Rig rig(4, {.error_rate = 0.9});
  for (int i = 0; i < 20; ++i) rig.round(1.0);
  for (int i = 0; i < 4; ++i) rig.answer(1, 0.0, false);
  rig.answer(1, 0.01);
  for (int i = 0; i < 4; ++i) rig.answer(1, 0.0, false);
  EXPECT_EQ(rig.state(1), NodeState::up);
  rig.answer(1, 0.0, false);
  EXPECT_EQ(rig.state(1), NodeState::ejected);
  EXPECT_EQ(rig.status(1).why, EjectedFor::errors_in_a_row);
}

TEST(Health, WhatAllErrAlikeOnIsNobodysFault) {
  Rig rig(6);
  for (int i = 0; i < 3000; ++i) rig.answer(i % 6, 0.01, rig.draw.uniform() > 0.5);
  EXPECT_EQ(rig.n_out(), 0u);
  for (int i = 0; i < 200; ++i) rig.answer(static_cast<std::uint32_t>(i) % 6, 0.0, false);
  EXPECT_EQ(rig.n_out(), 0u) << "a bad batch of inputs, or a broken model";
}

TEST(Health, WhatBeginsToFailEverywhereAtOnceIsNobodysFault) {
  for (const std::uint32_t n_nodes : {2u, 4u, 8u}) {
    Rig rig(n_nodes);
    for (int i = 0; i < 100; ++i) rig.round(1.0);
    for (int i = 0; i < 100; ++i) {
      for (std::uint32_t n = 0; n < n_nodes; ++n) rig.answer(n, 0.01, false);
    }
    EXPECT_EQ(rig.n_out(), 0u) << n_nodes;
    // One that errs on, once the others are well again, is at fault all the same.
    for (int i = 0; i < 100 && rig.n_out() == 0; ++i) {
      for (std::uint32_t n = 0; n < n_nodes; ++n) rig.answer(n, 0.01, n != 0);
    }
    EXPECT_EQ(rig.state(0), NodeState::ejected) << n_nodes;
  }
}

TEST(Health, ATenthOfErrorsIsTooMuchWherePeersHaveNone) {
  Rig rig(4);
  int n = 0;
  for (; n < 400 && rig.state(0) == NodeState::up; ++n) {
    for (std::uint32_t node = 1; node < 4; ++node) rig.answer(node, 0.01);
    rig.answer(0, 0.01, n % 6 != 0);
  }
  EXPECT_EQ(rig.status(0).why, EjectedFor::error_rate);
  EXPECT_LT(n, 64);
}

TEST(Health, AtMostHalfIsOutAndTheLeastBadComesBackForThoseThatAreLost) {
  Rig rig(4);
  for (int i = 0; i < 20; ++i) rig.round(1.0);
  for (int i = 0; i < 20; ++i) {
    for (std::uint32_t n = 0; n < 3; ++n) {
      rig.answer(n, 0.0, false);
      rig.answer(3, 0.01);
    }
    EXPECT_LE(rig.n_out(), 2u);
  }
  EXPECT_EQ(rig.n_out(), 2u);
  rig.fleet.set_state(NodeId{3}, NodeState::lost);
  rig.gate.follow(rig.now_ns);
  EXPECT_EQ(rig.n_out(), 1u) << "one of three";
}

TEST(Health, ALostNodeComesBackHalfOpenAndLongerEachTime) {
  Rig rig(4);
  for (int i = 0; i < 20; ++i) rig.round(1.0);
  const auto lose = [&] {
    rig.fleet.set_state(NodeId{0}, NodeState::lost);
    rig.gate.follow(rig.now_ns);
    rig.fleet.set_state(NodeId{0}, NodeState::up);
    rig.gate.follow(rig.now_ns);
  };
  lose();
  EXPECT_EQ(rig.state(0), NodeState::up);
  EXPECT_EQ(rig.status(0).stage, HealthStage::half_open);
  EXPECT_EQ(rig.fleet.columns().pair(0, contracts::FleetColumns::others_bound).second, 1.0f);
  lose();
  EXPECT_EQ(rig.state(0), NodeState::ejected);
  EXPECT_EQ(rig.status(0).why, EjectedFor::losses);
  EXPECT_EQ(rig.status(0).until_ns, rig.now_ns + 5 * second);
}

TEST(Health, ANodeThatWasWellWhenItWasLostComesBackHalfOpenHoweverOftenThatWas) {
  Rig rig(4);
  for (int i = 0; i < 20; ++i) rig.round(1.0);
  for (int times = 0; times < 4; ++times) {
    rig.fleet.set_state(NodeId{0}, NodeState::lost);
    rig.gate.follow(rig.now_ns);
    rig.fleet.set_state(NodeId{0}, NodeState::up);
    rig.gate.follow(rig.now_ns);
    EXPECT_EQ(rig.status(0).stage, HealthStage::half_open) << times;
    for (int i = 0; i < 2000 && rig.status(0).stage != HealthStage::well; ++i) rig.round(1.0);
    ASSERT_EQ(rig.status(0).stage, HealthStage::well) << times;
  }
}

TEST(Health, SlowStartKeepsToTheConfiguredBound) {
  Rig rig(3);
  rig.fleet.remove(NodeId{2});
  rig.fleet.add_at(NodeId{2}, {.name = "bounded", .pending_max = 3});
  rig.gate.follow(rig.now_ns);
  rig.fleet.set_state(NodeId{2}, NodeState::lost);
  rig.gate.follow(rig.now_ns);
  rig.fleet.set_state(NodeId{2}, NodeState::up);
  rig.gate.follow(rig.now_ns);
  const auto bound = [&] { return rig.fleet.columns().pair(2, contracts::FleetColumns::others_bound).second; };
  EXPECT_EQ(bound(), 1.0f);
  for (int i = 0; i < 3; ++i) rig.answer(2, 0.01);
  EXPECT_EQ(bound(), 2.0f);
  for (int i = 0; i < 1000; ++i) {
    rig.answer(2, 0.01);
    EXPECT_LE(bound(), 3.0f);
  }
  EXPECT_EQ(bound(), 3.0f);
  EXPECT_EQ(rig.status(2).stage, HealthStage::well);
}

TEST(Health, ChecksEjectAndBringBack) {
  Rig rig(4);
  for (int i = 0; i < 5; ++i) rig.gate.checked(rig.now_ns, NodeId{0}, false);
  EXPECT_EQ(rig.status(0).why, EjectedFor::failed_check);
  std::vector<NodeId> due;
  rig.gate.check_due(rig.now_ns + second / 2, due);
  EXPECT_TRUE(due.empty());
  rig.gate.check_due(rig.now_ns + second, due);
  EXPECT_EQ(due, std::vector<NodeId>{NodeId{0}});
  for (int i = 0; i < 3; ++i) rig.gate.checked(rig.now_ns + second, NodeId{0}, true);
  EXPECT_EQ(rig.status(0).stage, HealthStage::half_open);
  EXPECT_EQ(rig.state(0), NodeState::up);
}

TEST(Health, WhatAnotherProcessEjectedIsLetInWhenThatOneIsGone) {
  Rig rig(4);
  rig.fleet.set_state(NodeId{1}, NodeState::ejected);
  rig.gate.follow(rig.now_ns);
  EXPECT_EQ(rig.status(1).why, EjectedFor::elsewhere);
  rig.now_ns += 59 * second;
  rig.round(1.0);
  EXPECT_EQ(rig.state(1), NodeState::ejected);
  rig.now_ns += 2 * second;
  rig.round(1.0);
  EXPECT_EQ(rig.state(1), NodeState::up);
  EXPECT_EQ(rig.status(1).stage, HealthStage::half_open);
}

/// Nodes come and go at prices of the day, and each price is a class.
TEST(Health, ClassesAreAtMostAsManyAsNodes) {
  const route::Fleet fleet(4);
  HealthTracker tracker(fleet.columns(), {});
  const contracts::LatencyTable table(4, fleet.max_models());
  for (std::uint32_t i = 0; i < 1000; ++i) {
    tracker.joined(NodeId{i % 4}, 1000 + i);
    tracker.answered(i * second, {NodeId{i % 4}, ModelId{0}, {1, 1.0, 1.0}, 0.01, true}, table);
    ASSERT_LE(tracker.n_classes(), 4u);
  }
  tracker.joined(NodeId{0}, 1999);  // that of a node that is there
  EXPECT_EQ(tracker.n_classes(), 4u);
}

TEST(Health, RefusesFiguresOutOfBounds) {
  route::Fleet fleet(1);
  EXPECT_THROW((void)make_health_tracker(fleet.columns(), {.slow_factor = 1.0}), InvalidArgument);
  EXPECT_THROW((void)make_health_tracker(fleet.columns(), {.eject_ns = 2 * second, .eject_ns_max = second}),
               InvalidArgument);
  EXPECT_THROW((void)make_health_tracker(fleet.columns(), {.errors_in_a_row = 0}), InvalidArgument);
}

}  // namespace
}  // namespace infcore::health
