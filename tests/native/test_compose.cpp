// Who is in a batch where deadlines are in danger: a rule whose verdicts are a table, and what the machine makes of
// them. One device takes 10 ms a batch and 1 ms a request, to 1e-12 sure, unless said otherwise.
#include <infcore/engine/state_machine.hpp>

#include "counted_new.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace infcore::engine {
namespace {

using batch::Verdict;
using batch::Waiting;

constexpr TimeNs ms = 1'000'000;
constexpr contracts::Curve curve{.base_s = 10e-3, .per_request_s = 1e-3};

struct Asked {
  std::vector<double> works;  // who was shown: tests tell them apart by their work
  std::vector<bool> aged;
  std::uint32_t n_max{};
  batch::Traffic traffic{};
};

/// Says of each what `verdict` says of its work.
struct Table {
  std::function<Verdict(double work)> verdict = [](double) { return Verdict::take; };
  std::vector<Asked> asked;
  bool keeps_notes{true};
};

class TablePolicy final : public batch::BatchingPolicy {
 public:
  explicit TablePolicy(Table& table) : table_(table) {}

  batch::Close close(TimeNs now_ns, const batch::Pending& pending,
                     const contracts::LatencyModel&) const noexcept override {
    return {pending.shape.n_requests, now_ns};
  }
  void select(TimeNs, std::span<const Waiting> waiting, std::uint32_t n_max, const batch::Traffic& traffic,
              const contracts::LatencyModel&, std::span<Verdict> verdicts) const noexcept override {
    EXPECT_EQ(waiting.size(), verdicts.size());
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      EXPECT_EQ(verdicts[i], Verdict::leave);
      verdicts[i] = table_.verdict(waiting[i].work);
    }
    if (!table_.keeps_notes) return;
    Asked asked;
    asked.n_max = n_max;
    asked.traffic = traffic;
    for (const Waiting& w : waiting) asked.works.push_back(w.work), asked.aged.push_back(w.aged);
    table_.asked.push_back(asked);
  }

 private:
  Table& table_;
};

class Rig {
 public:
  explicit Rig(const std::string& policy = "fastest_finish", TimeNs ageing_ns = base::never_ns,
               std::uint32_t max_batch_size = 4)
      : fleet_(8, 4),
        latency_(8, 4),
        machine_({.max_requests = 1024, .max_nodes = 8, .max_models = 4, .n_tiers = 2, .ageing_ns = ageing_ns}, fleet_,
                 latency_, route::make_routing_policy(policy, 1), std::make_unique<TablePolicy>(table_)),
        model_(fleet_.model_id("m", 1)) {
    machine_.add_model(model_, {.max_batch_size = max_batch_size});
  }

  NodeId add_node(const contracts::Curve& its = curve, std::uint32_t slots = 1) {
    route::NodeSpec spec;
    spec.name = "n" + std::to_string(fleet_.n_nodes());
    spec.kind = spec.name;
    spec.slots = slots;
    const NodeId node = fleet_.add(spec);
    machine_.add_node(node, {});
    latency_.set_prior(model_, node, its);
    fleet_.load_model(node, model_);
    machine_.residency_changed(now_ns_, node);
    return node;
  }

  /// `work` is its name, too: no curve here looks at it unless said.
  RequestHandle arrive(std::uint64_t cookie, TimeNs left_ns = base::never_ns, std::uint16_t tier = 0,
                       std::uint64_t require = 0) {
    contracts::Request r;
    r.cookie = cookie;
    r.work = static_cast<double>(cookie);
    r.arrival_ns = now_ns_;
    r.deadline_ns = base::add_ns(now_ns_, left_ns);
    r.tier = tier;
    r.model = model_;
    r.require = require;
    return machine_.arrive(now_ns_, r);
  }

  /// What is decided now, as "dispatch 1" or "shed 2 early_drop".
  std::vector<std::string> decide() {
    machine_.tick(now_ns_);
    machine_.schedule(now_ns_);
    std::vector<std::string> said;
    for (const Action& a : machine_.actions()) {
      const bool sent = a.kind == ActionKind::dispatch;
      said.push_back(std::string(action_names[static_cast<std::size_t>(a.kind)]) + " " + std::to_string(a.cookie) +
                     (sent ? "" : std::string(" ") + reason_names[static_cast<std::size_t>(a.reason)]));
    }
    machine_.actions().clear();
    return said;
  }

  /// The node's worker takes what is open there, and has it at once.
  void answer(NodeId node) {
    const Batch* const batch = machine_.claim(now_ns_, node);
    ASSERT_NE(batch, nullptr);
    const std::uint64_t id = batch->id;
    machine_.started(now_ns_, node, id);
    ASSERT_TRUE(machine_.complete(now_ns_, node, id, true));
    machine_.actions().clear();
  }

  Table table_;
  route::Fleet fleet_;
  contracts::LatencyTable latency_;
  StateMachine machine_;
  ModelId model_;
  TimeNs now_ns_{0};
};

using Said = std::vector<std::string>;

TEST(Compose, RuleIsNotAskedWhereNobodyIsInDanger) {
  Rig rig;
  rig.add_node();
  for (std::uint64_t i = 1; i <= 3; ++i) rig.arrive(i, i == 2 ? 100 * ms : base::never_ns);
  EXPECT_EQ(rig.decide(), (Said{"dispatch 2", "dispatch 1", "dispatch 3"}));
  EXPECT_TRUE(rig.table_.asked.empty());
}

TEST(Compose, RuleIsNotAskedWhereOnlyTheLaterOnesAreInDanger) {
  Rig rig;
  rig.add_node();
  for (std::uint64_t i = 1; i <= 4; ++i) rig.arrive(i, 100 * ms);
  rig.arrive(5, 13 * ms, 1);  // a lower tier: comes fifth, and would be late only in a batch of four
  EXPECT_EQ(rig.decide(), (Said{"dispatch 1", "dispatch 2", "dispatch 3", "dispatch 4"}));
  EXPECT_TRUE(rig.table_.asked.empty());
}

TEST(Compose, VerdictsAreCarriedOutInTheOrderOfService) {
  Rig rig;
  const NodeId node = rig.add_node();
  rig.table_.verdict = [](double work) {
    return work == 1.0 || work == 4.0 ? Verdict::drop : work == 2.0 || work == 5.0 ? Verdict::take : Verdict::leave;
  };
  for (std::uint64_t i = 1; i <= 6; ++i) rig.arrive(i, static_cast<TimeNs>(12 + i) * ms);
  EXPECT_EQ(rig.decide(), (Said{"shed 1 early_drop", "dispatch 2", "shed 4 early_drop", "dispatch 5"}));
  ASSERT_EQ(rig.table_.asked.size(), 1u);
  EXPECT_EQ(rig.table_.asked[0].works, (std::vector<double>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(rig.table_.asked[0].n_max, 4u);
  EXPECT_EQ(rig.table_.asked[0].traffic.n_waiting, 6u);
  EXPECT_EQ(rig.table_.asked[0].traffic.max_batch_size, 4u);
  EXPECT_EQ(rig.machine_.model_stats(rig.model_)->shed, 2u);
  EXPECT_EQ(rig.machine_.model_stats(rig.model_)->expired, 0u);
  EXPECT_EQ(rig.machine_.n_pending(), 4u);
  EXPECT_EQ(rig.fleet_.inflight(node), 2u);
}

TEST(Compose, RuleGivesUpNobodyOfALaneThatItWasNotToldOf) {
  Rig rig;
  rig.add_node();
  rig.table_.verdict = [](double work) { return work == 1.0 ? Verdict::take : Verdict::drop; };
  const std::uint64_t its_kind = rig.fleet_.label_bits({{"kind", "n0"}}, true);
  rig.arrive(1, 11 * ms, 0, its_kind);
  rig.arrive(2, 12 * ms, 0, its_kind);
  rig.arrive(3, 12 * ms);
  EXPECT_EQ(rig.decide(), (Said{"dispatch 1", "shed 2 early_drop"}));
  ASSERT_EQ(rig.table_.asked.size(), 1u);
  EXPECT_EQ(rig.table_.asked[0].works, (std::vector<double>{1, 2, 3}));
}

TEST(Compose, NobodyWhoWasLeftJoinsThatBatchAndNewcomersDo) {
  Rig rig;
  const NodeId node = rig.add_node();
  rig.table_.verdict = [](double work) { return work == 2.0 ? Verdict::leave : Verdict::take; };
  rig.arrive(1, 5 * ms + 6 * ms);
  rig.arrive(2, 500 * ms);
  EXPECT_EQ(rig.decide(), (Said{"dispatch 1"}));
  EXPECT_EQ(rig.decide(), (Said{}));
  rig.arrive(3, 400 * ms);  // comes before 2
  EXPECT_EQ(rig.decide(), (Said{"dispatch 3"}));
  rig.answer(node);
  EXPECT_EQ(rig.decide(), (Said{"dispatch 2"}));
}

TEST(Compose, NewcomersJoinWhereNobodyIsLateForThem) {
  Rig rig;
  rig.add_node({.base_s = 10e-3, .per_request_s = 1e-3});
  rig.arrive(1, 13 * ms);  // 11 ms, 13.6 at the upper quantile: in danger, and the rule is asked
  EXPECT_EQ(rig.decide(), (Said{"dispatch 1"}));
  EXPECT_EQ(rig.table_.asked.size(), 1u);
  rig.arrive(2, 100 * ms);
  rig.arrive(3, 100 * ms);
  EXPECT_EQ(rig.decide(), (Said{"dispatch 2", "dispatch 3"}));
}

TEST(Compose, JoiningMakesNoMemberLate) {
  Rig rig;
  const NodeId node = rig.add_node();
  rig.arrive(1, 15 * ms);  // 13.6 ms at the upper quantile; 14.8 with a second, 16.03 with a third
  EXPECT_EQ(rig.decide(), (Said{"dispatch 1"}));
  rig.arrive(2);
  rig.arrive(3);
  EXPECT_EQ(rig.decide(), (Said{"dispatch 2"}));
  rig.answer(node);
  EXPECT_EQ(rig.decide(), (Said{"dispatch 3"}));
  EXPECT_TRUE(rig.table_.asked.empty());
}

TEST(Compose, WhoJoinsIsNotLateForIt) {
  Rig rig;
  const NodeId node = rig.add_node();
  for (std::uint64_t i = 1; i <= 3; ++i) rig.arrive(i);
  EXPECT_EQ(rig.decide().size(), 3u);
  rig.arrive(4, 14 * ms);  // alone in time, as a fourth not
  EXPECT_EQ(rig.decide(), (Said{}));
  rig.answer(node);
  EXPECT_EQ(rig.decide(), (Said{"dispatch 4"}));
}

TEST(Compose, WhereAllAreDroppedTheNextAreAsked) {
  Rig rig("fastest_finish", base::never_ns, 2);
  rig.add_node();
  rig.table_.verdict = [](double work) { return work < 300 ? Verdict::drop : Verdict::take; };
  for (std::uint64_t i = 1; i <= 301; ++i) rig.arrive(i, 12 * ms);
  const Said said = rig.decide();
  ASSERT_EQ(said.size(), 301u);
  EXPECT_EQ(said[298], "shed 299 early_drop");
  EXPECT_EQ(said[299], "dispatch 300");
  EXPECT_EQ(said[300], "dispatch 301");
  ASSERT_EQ(rig.table_.asked.size(), 2u);
  EXPECT_EQ(rig.table_.asked[0].works.size(), 256u);
  EXPECT_EQ(rig.table_.asked[1].works.size(), 45u);
}

TEST(Compose, ARuleThatLeavesAllOrTakesTooManyDoesNoHarm) {
  Rig rig;
  const NodeId node = rig.add_node();
  rig.table_.verdict = [](double) { return Verdict::leave; };
  for (std::uint64_t i = 1; i <= 6; ++i) rig.arrive(i, 12 * ms);
  EXPECT_EQ(rig.decide(), (Said{}));
  EXPECT_EQ(rig.table_.asked.size(), 1u);
  rig.table_.verdict = [](double) { return Verdict::take; };
  rig.arrive(7, 12 * ms);
  EXPECT_EQ(rig.decide().size(), 4u);
  rig.answer(node);
  EXPECT_EQ(rig.decide().size(), 3u);
}

TEST(Compose, ShownFirstAreTheAgedThenTiersThenDeadlines) {
  Rig rig("fastest_finish", 30 * ms);
  const NodeId node = rig.add_node();
  rig.arrive(1);
  EXPECT_EQ(rig.decide(), (Said{"dispatch 1"}));
  const Batch* const batch = rig.machine_.claim(0, node);
  ASSERT_NE(batch, nullptr);
  rig.arrive(2, base::never_ns, 1);
  rig.arrive(3, 500 * ms, 1);
  rig.now_ns_ += 30 * ms;
  rig.arrive(4, base::never_ns, 0);
  rig.arrive(5, 15 * ms, 1);
  rig.arrive(6, 14 * ms, 1);
  rig.arrive(7, 12 * ms, 0);
  rig.arrive(8, 13 * ms, 0);
  rig.machine_.started(rig.now_ns_, node, batch->id);  // took no time: nothing is learnt of it
  EXPECT_TRUE(rig.machine_.complete(rig.now_ns_, node, 1, true));
  rig.machine_.actions().clear();
  EXPECT_EQ(rig.decide(), (Said{"dispatch 2", "dispatch 3", "dispatch 7", "dispatch 8"}));
  ASSERT_EQ(rig.table_.asked.size(), 1u);
  EXPECT_EQ(rig.table_.asked[0].works, (std::vector<double>{2, 3, 7, 8, 4, 6, 5}));
  EXPECT_EQ(rig.table_.asked[0].aged, (std::vector<bool>{true, true, false, false, false, false, false}));
}

TEST(Compose, WhatOnlyAFasterDeviceCanDoWaitsForItAndIsNotShown) {
  Rig rig;
  const NodeId fast = rig.add_node({.base_s = 4e-3, .per_request_s = 1e-3});
  const NodeId slow = rig.add_node({.base_s = 20e-3, .per_request_s = 1e-3});
  rig.arrive(1);
  EXPECT_EQ(rig.decide(), (Said{"dispatch 1"}));
  ASSERT_NE(rig.machine_.claim(0, fast), nullptr);
  rig.now_ns_ = 50 * ms;  // it hangs: nobody waits for it but who has to
  rig.arrive(2, 2 * ms);  // nowhere in time
  for (std::uint64_t i = 3; i <= 8; ++i) rig.arrive(i, i < 5 ? 10 * ms : 25 * ms);
  EXPECT_EQ(rig.decide(), (Said{"shed 2 deadline", "dispatch 5", "dispatch 6", "dispatch 7", "dispatch 8"}));
  ASSERT_EQ(rig.table_.asked.size(), 1u);
  EXPECT_EQ(rig.table_.asked[0].works, (std::vector<double>{5, 6, 7, 8}));
  EXPECT_EQ(rig.fleet_.inflight(slow), 4u);
  EXPECT_EQ(rig.machine_.n_pending(), 1u + 4u + 2u);
  EXPECT_NEAR(rig.table_.asked[0].traffic.capacity_per_s, 4 / 8e-3 + 4 / 24e-3, 1e-2);
}

TEST(Compose, ABoundLaneHasOneDevice) {
  Rig rig("round_robin");
  rig.add_node(curve, 3);
  rig.table_.verdict = [](double work) { return work == 1.0 ? Verdict::drop : Verdict::take; };
  rig.arrive(1, 12 * ms);
  rig.arrive(2, 13 * ms);
  rig.arrive(3, 10 * ms);  // 11 ms even alone
  EXPECT_EQ(rig.decide(), (Said{"shed 3 deadline", "shed 1 early_drop", "dispatch 2"}));
  ASSERT_EQ(rig.table_.asked.size(), 1u);
  EXPECT_NEAR(rig.table_.asked[0].traffic.capacity_per_s, 3 * 4 / 14e-3, 1e-2);
  EXPECT_EQ(rig.fleet_.inflight(NodeId{0}), 1u);
}

TEST(Compose, OneThatMustRunAloneIsShownAloneOnceItComesFirst) {
  Rig rig;
  const NodeId node = rig.add_node();
  rig.arrive(1, 60 * ms);
  rig.arrive(2, 61 * ms);
  EXPECT_EQ(rig.decide().size(), 2u);
  const Batch* const batch = rig.machine_.claim(0, node);
  rig.machine_.started(0, node, batch->id);
  rig.now_ns_ = 48 * ms;
  EXPECT_TRUE(rig.machine_.complete(rig.now_ns_, node, 1, false));  // both are to run alone
  rig.arrive(3, 12 * ms + ms / 2);                                  // before 2
  EXPECT_EQ(rig.decide(), (Said{"retry 1 device_failed", "retry 2 device_failed", "dispatch 1"}));
  rig.table_.asked.clear();
  rig.answer(node);
  EXPECT_EQ(rig.decide(), (Said{"dispatch 3"}));
  ASSERT_EQ(rig.table_.asked.size(), 1u);
  EXPECT_EQ(rig.table_.asked[0].works, (std::vector<double>{3}));
}

TEST(Compose, NothingAllocatesOnceWarm) {
  Rig rig("fastest_finish", 5 * ms, 16);
  const NodeId node = rig.add_node();
  rig.table_.keeps_notes = false;
  rig.table_.verdict = [](double work) {
    const auto cookie = static_cast<std::uint64_t>(work);
    return cookie % 3 == 0 ? Verdict::drop : Verdict::take;
  };
  std::size_t before = 0;
  for (int round = 0; round < 40; ++round) {
    if (round == 20) before = n_allocations;
    for (std::uint64_t i = 0; i < 600; ++i) {
      rig.arrive(i, static_cast<TimeNs>(12 + i % 40) * ms, static_cast<std::uint16_t>(i % 2));
    }
    rig.now_ns_ += 11 * ms;
    rig.machine_.tick(rig.now_ns_);
    rig.machine_.schedule(rig.now_ns_);
    rig.machine_.actions().clear();
    rig.answer(node);
    if (round % 5 == 4) rig.machine_.cancel_all(rig.now_ns_, Reason::caller), rig.machine_.actions().clear();
  }
  EXPECT_GT(before, 0u);
  EXPECT_EQ(n_allocations, before);
}

}  // namespace
}  // namespace infcore::engine
