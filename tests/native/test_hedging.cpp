// Hedging under any history: every accepted request is answered exactly once, whoever is first, lost, cancelled or
// late; and what a node was lent comes back.
#include <infcore/engine/state_machine.hpp>

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace infcore::engine {
namespace {

constexpr TimeNs ms = 1'000'000;
constexpr std::uint32_t n_nodes = 4;

struct Seen {
  std::uint64_t runs{};  ///< dispatches and hedges
  bool ended{};
};

struct Taken {
  NodeId node;
  std::uint64_t batch;
  bool started;
};

/// A fleet of unlike nodes, a machine that hedges, and everything that may happen to it, at random.
class History {
 public:
  History(std::uint64_t seed, const std::string& policy)
      : draw_(seed),
        fleet_(n_nodes, 2),
        latency_(n_nodes, 2),
        machine_(config(), fleet_, latency_, route::make_routing_policy(policy, 1),
                 batch::make_batching_policy("greedy")),
        model_(fleet_.model_id("m", 1)) {
    machine_.add_model(model_, {.max_batch_size = 1 + static_cast<std::uint32_t>(any(4)), .idempotent = any(8) != 0});
    for (std::uint32_t i = 0; i < n_nodes; ++i) {
      route::NodeSpec spec;
      spec.name = "n" + std::to_string(i);
      spec.slots = 1 + static_cast<std::uint32_t>(any(2));
      const NodeId node = fleet_.add(spec);
      machine_.add_node(node, {.run_limit_ns = any(2) != 0 ? base::never_ns : 60 * ms});
      latency_.set_prior(model_, node, {.base_s = 1e-3 * static_cast<double>(1 + any(3)), .per_request_s = 1e-4});
      fleet_.load_model(node, model_);
      machine_.residency_changed(0, node);
    }
  }

  void run(int n_steps) {
    for (int i = 0; i < n_steps; ++i) {
      event();
      settle();
    }
  }

  /// Every node works until nothing is left.
  void finish() {
    for (std::uint32_t i = 0; i < n_nodes; ++i) machine_.node_back(now_ns_, NodeId{i});
    settle();
    for (int i = 0; i < 1000 && machine_.n_pending() > 0; ++i) {
      for (std::uint32_t node = 0; node < n_nodes; ++node) claim(NodeId{node});
      while (!taken_.empty()) {
        start(0);
        complete(0, true);
      }
      for (std::uint32_t node = 0; node < n_nodes; ++node) machine_.node_back(now_ns_, NodeId{node});
      now_ns_ += ms;
      settle();
    }
    ASSERT_EQ(machine_.n_pending(), 0u);
    for (const auto& [cookie, seen] : seen_) EXPECT_TRUE(seen.ended) << cookie;
    for (std::uint32_t node = 0; node < n_nodes; ++node) {
      contracts::Credit own{};
      contracts::Signal last{};
      fleet_.read(NodeId{node}, own, last);
      EXPECT_EQ(own.inflight, 0);
      EXPECT_EQ(own.reserved_ns, 0);
    }
  }

  [[nodiscard]] const Stats& stats() const { return *machine_.model_stats(model_); }

 private:
  static EngineConfig config() {
    EngineConfig config{.max_requests = 24, .max_nodes = n_nodes, .max_models = 2, .stage_histograms = false};
    config.hedge_quantile = 0.9;
    config.hedge_budget = 0.5;
    return config;
  }

  std::uint64_t any(std::uint64_t n) { return draw_() % n; }

  void event() {
    switch (any(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return arrive();
      case 4:
        if (!handles_.empty()) machine_.cancel(now_ns_, handles_[any(handles_.size())], Reason::caller);
        return;
      case 5:
      case 6:
      case 7:
      case 8:
        return claim(NodeId{static_cast<std::uint32_t>(any(n_nodes))});
      case 9:
      case 10:
        if (!taken_.empty()) start(any(taken_.size()));
        return;
      case 11:
      case 12:
        if (!taken_.empty()) complete(any(taken_.size()), any(6) != 0);
        return;
      case 13:
        return trouble(NodeId{static_cast<std::uint32_t>(any(n_nodes))});
      default:
        now_ns_ += static_cast<TimeNs>(any(4 * ms));
    }
  }

  void arrive() {
    contracts::Request r;
    r.cookie = ++n_arrived_;
    r.arrival_ns = now_ns_;
    r.deadline_ns = any(2) != 0 ? base::never_ns : now_ns_ + static_cast<TimeNs>(any(20 * ms));
    r.model = model_;
    seen_[r.cookie];
    if (const RequestHandle handle = machine_.arrive(now_ns_, r)) handles_.push_back(handle);
  }

  void claim(NodeId node) {
    if (const Batch* batch = machine_.claim(now_ns_, node)) {
      taken_.push_back({node, batch->id, false});
      if (any(4) != 0) start(taken_.size() - 1);
    }
  }

  void start(std::size_t at) {
    if (!taken_[at].started) machine_.started(now_ns_, taken_[at].node, taken_[at].batch);
    taken_[at].started = true;
  }

  void complete(std::size_t at, bool ok) {
    const Taken taken = taken_[at];
    taken_.erase(taken_.begin() + static_cast<std::ptrdiff_t>(at));
    machine_.complete(now_ns_, taken.node, taken.batch, ok);
  }

  void trouble(NodeId node) {
    if (fleet_.state(node) == route::NodeState::lost || any(4) != 0) return machine_.node_back(now_ns_, node);
    machine_.node_lost(now_ns_, node);
  }

  void settle() {
    machine_.tick(now_ns_);
    machine_.schedule(now_ns_);
    for (const Action& action : machine_.actions()) {
      Seen& seen = seen_.at(action.cookie);
      ASSERT_FALSE(seen.ended) << "an action for request " << action.cookie << ", which has ended";
      switch (action.kind) {
        case ActionKind::dispatch:
        case ActionKind::hedge:
          ++seen.runs;
          break;
        case ActionKind::retry:
          break;
        default:
          seen.ended = true;
      }
      if (action.kind == ActionKind::hedge) {
        EXPECT_EQ(fleet_.state(action.node), route::NodeState::up);
      }
    }
    machine_.actions().clear();
    ASSERT_TRUE(machine_.next_timer_ns() > now_ns_);
  }

  std::mt19937_64 draw_;
  route::Fleet fleet_;
  contracts::LatencyTable latency_;
  StateMachine machine_;
  ModelId model_;
  TimeNs now_ns_{0};
  std::uint64_t n_arrived_{};
  std::map<std::uint64_t, Seen> seen_;
  std::vector<RequestHandle> handles_;
  std::vector<Taken> taken_;
};

TEST(Hedging, EveryRequestIsAnsweredOnceWhateverHappens) {
  std::uint64_t n_hedged = 0, n_won = 0;
  double wasted_s = 0.0;
  for (std::uint64_t seed = 0; seed < 4000; ++seed) {
    History history(seed, seed % 4 == 0 ? "least_outstanding" : "fastest_finish");
    history.run(200);
    history.finish();
    if (HasFatalFailure() || HasNonfatalFailure()) FAIL() << "seed " << seed;
    n_hedged += history.stats().hedged;
    n_won += history.stats().hedge_won;
    wasted_s += history.stats().hedge_wasted_s;
  }
  EXPECT_GT(n_hedged, 2000u);
  EXPECT_GT(n_won, 200u);
  EXPECT_LT(n_won, n_hedged);
  EXPECT_GT(wasted_s, 0.0);
}

TEST(Lateness, QuantileAndMeanExcessOfWhatWasSeen) {
  Lateness seen;
  EXPECT_EQ(seen.quantile(0.95), Lateness::multiple_at_start);
  for (int i = 0; i < 95; ++i) seen.observe(1.0);
  for (int i = 0; i < 5; ++i) seen.observe(8.0);
  EXPECT_EQ(seen.quantile(0.95), 1.125);  // the bucket of 1 ends there
  EXPECT_EQ(seen.quantile(0.96), 9.0);
  EXPECT_NEAR(seen.mean_excess(1.0), 7.5, 1e-12);  // 8 lies in 8 to 9
  EXPECT_EQ(seen.mean_excess(8.5), 0.0);
  EXPECT_EQ(seen.quantile(0.99), Lateness::multiple_at_start);  // one request says nothing about it
  seen.observe(0.0);
  seen.observe(1e300);
  for (std::uint32_t i = 0; i < Lateness::n_kept; ++i) seen.observe(2.0);
  EXPECT_LT(seen.n_observed(), Lateness::n_kept);
  EXPECT_EQ(seen.quantile(0.5), 2.25);
}

TEST(CountedBudget, IsSpentByOnesAndEarnedByShares) {
  CountedBudget budget(2.0);
  EXPECT_TRUE(budget.spend(0.25));
  EXPECT_TRUE(budget.spend(0.25));
  EXPECT_FALSE(budget.spend(0.25));
  EXPECT_TRUE(budget.spend(CountedBudget::unbounded));
  for (int i = 0; i < 4; ++i) budget.earn(0.25, 2.0);
  EXPECT_TRUE(budget.spend(0.25));
  EXPECT_FALSE(budget.spend(0.25));
  for (int i = 0; i < 100; ++i) budget.earn(0.25, 2.0);
  EXPECT_EQ(budget.left(), 2.0);
}

}  // namespace
}  // namespace infcore::engine
