// The state machine in C++ alone: under sanitizers it runs over every path that the Python tests compare.
#include <infcore/engine/state_machine.hpp>

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace infcore::engine {
namespace {

constexpr TimeNs ms = 1'000'000;

/// A few nodes that hold one model, and a machine over them.
class Rig {
 public:
  explicit Rig(const std::string& policy, std::uint32_t n_nodes, std::uint32_t slots = 1, EngineConfig config = {},
               std::unique_ptr<batch::BatchingPolicy> batching = batch::make_batching_policy("dynamic"))
      : fleet_(16, 8),
        latency_(16, 8),
        machine_(bounded(config), fleet_, latency_, route::make_routing_policy(policy, 1), std::move(batching)),
        model_(fleet_.model_id("m", 1)) {
    machine_.add_model(model_, {.max_batch_size = 4});
    for (std::uint32_t i = 0; i < n_nodes; ++i) add_node("n" + std::to_string(i), slots, 1e-3 * (i + 1));
  }

  NodeId add_node(const std::string& name, std::uint32_t slots, double base_s) {
    route::NodeSpec spec;
    spec.name = name;
    spec.slots = slots;
    const NodeId node = fleet_.add(spec);
    machine_.add_node(node, {.run_limit_ns = 500 * ms});
    latency_.set_prior(model_, node, {.base_s = base_s, .per_request_s = 1e-4});
    fleet_.load_model(node, model_);
    machine_.residency_changed(now_ns_, node);
    return node;
  }

  RequestHandle arrive(std::uint64_t cookie, TimeNs deadline_ns = base::never_ns) {
    contracts::Request r;
    r.cookie = cookie;
    r.arrival_ns = now_ns_;
    r.deadline_ns = deadline_ns;
    r.model = model_;
    return machine_.arrive(now_ns_, r);
  }

  std::vector<Action> step(TimeNs by_ns = 0) {
    now_ns_ += by_ns;
    machine_.tick(now_ns_);
    machine_.schedule(now_ns_);
    std::vector<Action> actions;
    actions.swap(machine_.actions());
    return actions;
  }

  static EngineConfig bounded(EngineConfig config) {
    config.max_nodes = 16;
    config.max_models = 8;
    return config;
  }

  route::Fleet fleet_;
  contracts::LatencyTable latency_;
  StateMachine machine_;
  ModelId model_;
  TimeNs now_ns_{0};
};

TEST(StateMachine, OneRequestGoesToTheFastestNodeAndEnds) {
  Rig rig("fastest_finish", 3);
  const RequestHandle handle = rig.arrive(7);
  ASSERT_NE(handle, 0u);
  const std::vector<Action> sent = rig.step();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].kind, ActionKind::dispatch);
  EXPECT_EQ(sent[0].node, NodeId{0});
  const Batch* batch = rig.machine_.claim(rig.now_ns_, NodeId{0});
  ASSERT_NE(batch, nullptr);
  const std::uint64_t id = batch->id;
  rig.machine_.started(rig.now_ns_, NodeId{0}, id);
  ASSERT_TRUE(rig.machine_.complete(rig.now_ns_ += ms, NodeId{0}, id, true));
  const std::vector<Action> ended = rig.step();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].cookie, 7u);
  EXPECT_EQ(ended[0].reason, Reason::ok);
  EXPECT_FALSE(rig.machine_.cancel(rig.now_ns_, handle, Reason::caller)) << "its slot's generation has moved on";
  EXPECT_FALSE(rig.machine_.complete(rig.now_ns_, NodeId{0}, id, true));
}

TEST(StateMachine, BoundOfRequestsHoldsAndFreesAgain) {
  Rig rig("fastest_finish", 0, 1, {.max_requests = 2});
  const RequestHandle first = rig.arrive(1);
  ASSERT_NE(first, 0u);
  ASSERT_NE(rig.arrive(2), 0u);
  EXPECT_EQ(rig.arrive(3), 0u);
  EXPECT_TRUE(rig.machine_.cancel(0, first, Reason::caller));
  EXPECT_NE(rig.arrive(4), 0u);
  EXPECT_EQ(rig.machine_.n_pending(), 2u);
}

TEST(StateMachine, RefusesAConfigurationWithoutRequests) {
  EXPECT_THROW(Rig("fastest_finish", 1, 1, {.max_requests = 0}), InvalidArgument);
}

/// Verdicts by lot: nothing that a rule may say loses a request or ends one twice.
class AnyVerdict final : public batch::BatchingPolicy {
 public:
  explicit AnyVerdict(std::mt19937& draw) : draw_(draw) {}
  batch::Close close(TimeNs now_ns, const batch::Pending& pending,
                     const contracts::LatencyModel&) const noexcept override {
    const auto n = static_cast<std::uint32_t>(draw_() % (pending.shape.n_requests + 1));
    return {n, now_ns + ms};
  }
  void select(TimeNs, std::span<const batch::Waiting>, std::uint32_t, const batch::Traffic&,
              const contracts::LatencyModel&, std::span<batch::Verdict> verdicts) const noexcept override {
    for (batch::Verdict& verdict : verdicts) verdict = static_cast<batch::Verdict>(draw_() % 3);
  }

 private:
  std::mt19937& draw_;
};

/// Workers that claim, fail, hang and get lost at random; devices are replaced under them.
void churn(const std::string& policy, std::uint32_t seed) {
  SCOPED_TRACE(policy + " " + std::to_string(seed));
  std::mt19937 draw(seed);
  const auto chance = [&](std::uint32_t percent) { return draw() % 100 < percent; };
  auto batching = seed % 2 == 0 ? batch::make_batching_policy("dynamic") : std::make_unique<AnyVerdict>(draw);
  Rig rig(policy, 4, 2, {.max_requests = 64, .n_tiers = 2, .ageing_ns = 50 * ms}, std::move(batching));
  std::set<std::uint64_t> open;  // cookies
  std::map<std::uint64_t, NodeId> claimed;
  std::uint64_t n_arrived = 0, n_ended = 0;
  const auto read = [&](const std::vector<Action>& actions) {
    for (const Action& a : actions) {
      if (a.kind == ActionKind::dispatch || a.kind == ActionKind::retry) {
        ASSERT_TRUE(open.contains(a.cookie));
      } else {
        ASSERT_EQ(open.erase(a.cookie), 1u) << "ended twice";
        ++n_ended;
      }
    }
  };
  for (int i = 0; i < 3000; ++i) {
    for (std::uint32_t n = draw() % 4; n > 0; --n) {
      open.insert(++n_arrived);
      const RequestHandle handle =
          rig.arrive(n_arrived, chance(50) ? base::never_ns : rig.now_ns_ + static_cast<TimeNs>(draw() % 30) * ms);
      if (chance(10)) rig.machine_.cancel(rig.now_ns_, handle, Reason::caller);
    }
    for (NodeId node{0}; node.value < rig.fleet_.n_nodes(); ++node.value) {
      if (rig.fleet_.state(node) == route::NodeState::absent) continue;
      if (const Batch* batch = chance(60) ? rig.machine_.claim(rig.now_ns_, node) : nullptr) {
        claimed[batch->id] = node;
        if (chance(80)) rig.machine_.started(rig.now_ns_, node, batch->id);
      }
      if (chance(1)) rig.machine_.node_lost(rig.now_ns_, node);
      if (chance(1)) rig.machine_.remove_node(rig.now_ns_, node);
    }
    for (auto it = claimed.begin(); it != claimed.end();) {
      if (!chance(50)) {
        ++it;
        continue;
      }
      if (!rig.machine_.complete(rig.now_ns_, it->second, it->first, chance(90))) {
        rig.machine_.node_back(rig.now_ns_, it->second);
      }
      it = claimed.erase(it);
    }
    if (chance(5) && rig.fleet_.n_nodes() < 12) rig.add_node("r" + std::to_string(i), 1 + draw() % 2, 1e-3);
    read(rig.step(static_cast<TimeNs>(draw() % 3) * ms / 2));
    EXPECT_GT(rig.machine_.next_timer_ns(), rig.now_ns_);
    if (testing::Test::HasFailure()) return;
  }
  rig.machine_.cancel_all(rig.now_ns_, Reason::closing);
  for (const auto& [batch, node] : claimed) rig.machine_.complete(rig.now_ns_, node, batch, true);
  read(rig.step());
  EXPECT_GT(n_arrived, 3000u);
  EXPECT_EQ(n_ended, n_arrived);
  EXPECT_EQ(rig.machine_.n_pending(), 0u);
  for (NodeId node{0}; node.value < rig.fleet_.n_nodes(); ++node.value) EXPECT_EQ(rig.fleet_.inflight(node), 0u);
}

TEST(StateMachine, EachRequestEndsOnceThroughChurn) {
  for (const std::string& policy : route::routing_policies()) {
    for (std::uint32_t seed = 0; seed < 4; ++seed) churn(policy, seed);
  }
}

}  // namespace
}  // namespace infcore::engine
