// The fleet table where Python cannot look: the columns of load costs, the words of a row, credit cells, threads, and a
// fleet that several have open at once.
#include <infcore/base/errors.hpp>
#include <infcore/route/fleet.hpp>

#include <gtest/gtest.h>

#include <unistd.h>

#include <atomic>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace infcore::route {
namespace {

constexpr float never = std::numeric_limits<float>::infinity();

NodeSpec node_with(const std::string& name, std::uint64_t memory_bytes, const std::string& kind = "gpu") {
  NodeSpec spec;
  spec.name = name;
  spec.kind = kind;
  spec.memory_bytes = memory_bytes;
  return spec;
}

class LoadCosts : public testing::Test {
 protected:
  std::vector<float> of(ModelId model) {
    std::vector<float> column(64, -1.0f);
    fleet.load_costs(model, column.data());
    column.resize(fleet.n_nodes());
    return column;
  }
  ModelId declared(const char* name, std::uint64_t bytes, double load_s, std::uint32_t version = 1) {
    const ModelId model = fleet.model_id(name, version);
    fleet.declare_model(model, {.weights_bytes = bytes, .load_s = load_s});
    return model;
  }
  ModelId any(const char* name) { return fleet.model_id(name, 0); }
  Fleet fleet{64};
};

TEST_F(LoadCosts, ResidentIsFreeAndWhatWasNotDeclaredIsNeverLoaded) {
  const ModelId model = fleet.model_id("m", 1);
  fleet.load_model(fleet.add(node_with("a", 100)), model);
  fleet.add(node_with("b", 100));
  EXPECT_EQ(of(any("m")), (std::vector<float>{0.0f, never}));
  declared("m", 60, 2.0);
  EXPECT_EQ(of(any("m")), (std::vector<float>{0.0f, 2e6f}));
  EXPECT_EQ(of(model), (std::vector<float>{0.0f, 2e6f}));
}

TEST_F(LoadCosts, WhatDoesNotFitTheEmptyNodeIsNeverLoaded) {
  fleet.add(node_with("a", 59));
  fleet.add(node_with("b", 60));
  fleet.add(node_with("c", 0));
  declared("m", 60, 2.0);
  EXPECT_EQ(of(any("m")), (std::vector<float>{never, 2e6f, never}));
  declared("weightless", 0, 0.5);
  EXPECT_EQ(of(any("weightless")), (std::vector<float>{0.5e6f, 0.5e6f, 0.5e6f}));
}

TEST_F(LoadCosts, MakingRoomCostsTheLoadsOfWhatGoesTheLeastWantedFirst) {
  const NodeId node = fleet.add(node_with("a", 100));
  const ModelId x = declared("x", 30, 1.0), y = declared("y", 50, 4.0);
  fleet.load_model(node, x);
  fleet.load_model(node, y);
  declared("z", 40, 2.0);
  fleet.want(any("x"), 1'000'000'000);
  fleet.want(any("y"), 2'000'000'000);
  EXPECT_FLOAT_EQ(of(any("z"))[0], 3e6f) << "x goes: 20 free and its 30 are enough";
  fleet.want(x, 3'000'000'000);
  EXPECT_FLOAT_EQ(of(any("z"))[0], 6e6f) << "y was wanted before x, by its name or its version";
  declared("w", 60, 2.0);
  EXPECT_FLOAT_EQ(of(any("w"))[0], 6e6f) << "y's 50 and 20 free";
  declared("all", 100, 2.0);
  EXPECT_FLOAT_EQ(of(any("all"))[0], 7e6f);
  EXPECT_EQ(fleet.used_bytes(), std::vector<std::uint64_t>{80});
}

TEST_F(LoadCosts, TheCheapestVersionAndOnlyWhereItsLabelsAre) {
  fleet.add(node_with("a", 100));
  fleet.add(node_with("b", 100, "cpu"));
  declared("m", 60, 2.0, 1);
  const ModelId second = fleet.model_id("m", 2);
  fleet.declare_model(second,
                      {.weights_bytes = 10, .load_s = 1.0, .require = fleet.label_bits({{"kind", "cpu"}}, true)});
  EXPECT_EQ(of(any("m")), (std::vector<float>{2e6f, 1e6f}));
  EXPECT_EQ(of(second), (std::vector<float>{never, 1e6f}));
}

TEST_F(LoadCosts, ResidencyCountsWhateverChangesTheColumn) {
  std::uint64_t before = fleet.residency();
  const auto moved = [&] {
    const std::uint64_t now = fleet.residency();
    const bool yes = now != before;
    before = now;
    return yes;
  };
  const NodeId node = fleet.add(node_with("a", 100));
  EXPECT_TRUE(moved());
  const ModelId model = declared("m", 60, 2.0);
  EXPECT_TRUE(moved());
  fleet.load_model(node, model);
  EXPECT_TRUE(moved());
  fleet.load_model(node, model);
  fleet.want(model, 5);
  fleet.signal(node, {.as_of_ns = 5, .cpu = 0.5});
  fleet.reserve(node, 1.0, 6);
  EXPECT_FALSE(moved());
  fleet.drain(node);
  EXPECT_TRUE(moved()) << "who is up";
  fleet.unload_model(node, model);
  EXPECT_TRUE(moved());
  fleet.remove(node);
  EXPECT_TRUE(moved());
  EXPECT_EQ(of(model), std::vector<float>{never});
}

TEST_F(LoadCosts, RefusesWhatIsNoLoadTime) {
  EXPECT_THROW(declared("m", 1, -1.0), InvalidArgument);
  EXPECT_THROW(declared("m", 1, std::numeric_limits<double>::quiet_NaN()), InvalidArgument);
  EXPECT_THROW(fleet.declare_model(ModelId{9}, {}), UnknownName);
}

TEST(FleetWords, TheTimeOfTheNewestSignalAndItsErrorRate) {
  Fleet fleet(2);
  const NodeId node = fleet.add(node_with("a", 0));
  EXPECT_EQ(fleet.columns().heard_at_ns(node.value), Fleet::untimed);
  EXPECT_TRUE(fleet.signal(node, {.as_of_ns = 7, .error_rate = 0.25}));
  EXPECT_EQ(fleet.columns().heard_at_ns(node.value), 7);
  EXPECT_EQ(fleet.columns().pair(node.value, contracts::FleetColumns::error_rate).first, 0.25f);
  EXPECT_FALSE(fleet.signal(node, {.as_of_ns = 6, .error_rate = 0.5}));
  EXPECT_EQ(fleet.columns().heard_at_ns(node.value), 7);
}

TEST(CreditCell, LaysChangesOnTheirSideOfATime) {
  contracts::CreditCell<> cell;
  struct Change {
    base::TimeNs at_ns;
    contracts::Credit by;
  };
  std::vector<Change> changes;
  std::mt19937 random(3);
  base::TimeNs now_ns = 0;
  for (int i = 0; i < 3000; ++i) {
    now_ns += random() % 3;
    const auto requests = static_cast<std::int64_t>(random() % 7) - 3;
    changes.push_back({now_ns - static_cast<base::TimeNs>(random() % 2),
                       {requests, requests * static_cast<std::int64_t>(random() % 100'000'000)}});
    cell.add(changes.back().by, changes.back().at_ns);
    const base::TimeNs asked_ns = now_ns - static_cast<base::TimeNs>(random() % 4);
    contracts::Credit total, since;
    for (std::size_t k = 0; k < changes.size(); ++k) {
      const Change& change = changes[k];
      total.inflight += change.by.inflight, total.reserved_ns += change.by.reserved_ns;
      if (k + 16 < changes.size() || change.at_ns <= asked_ns) continue;
      since.inflight += change.by.inflight, since.reserved_ns += change.by.reserved_ns;
    }
    const auto seen = cell.read(asked_ns, 1, [] {});
    ASSERT_TRUE(seen.exact);
    ASSERT_EQ(seen.total.inflight, total.inflight);
    ASSERT_EQ(seen.total.reserved_ns, total.reserved_ns);
    ASSERT_EQ(cell.total().inflight, total.inflight);
    ASSERT_EQ(seen.since.inflight, since.inflight);
    ASSERT_EQ(seen.since.reserved_ns, since.reserved_ns);
  }
  cell.clear();
  EXPECT_EQ(cell.read(0, 1, [] {}).total.inflight, 0);
}

TEST(CreditCell, ForgetsChangesAndKeepsWhatIsHeld) {
  contracts::CreditCell<> cell;
  cell.forget_changes();
  EXPECT_TRUE(cell.read(0, 1, [] {}).exact);
  for (int i = 0; i < 20; ++i) cell.add({1, 100}, 10);
  cell.forget_changes();
  const auto seen = cell.read(5, 1, [] {});
  EXPECT_TRUE(seen.exact);
  EXPECT_EQ(seen.total.inflight, 20);
  EXPECT_EQ(seen.total.reserved_ns, 2000);
  EXPECT_EQ(seen.since.inflight, 0);
  EXPECT_EQ(seen.since.reserved_ns, 0);
}

TEST(FleetRows, ANewNodeKnowsNothingOfWhoHadItsRow) {
  Fleet fleet(64);
  NodeSpec spec;
  spec.name = "a";
  const NodeId old = fleet.add(spec);
  fleet.reserve(old, 1.0, 10);
  fleet.set_state(old, NodeState::absent);
  fleet.release(old, 1.0, 20);
  spec.name = "b";
  const NodeId node = fleet.add(spec);
  ASSERT_EQ(node, old);
  fleet.reserve(node, 0.5, 30);
  ASSERT_TRUE(fleet.signal(node, {.as_of_ns = 15, .inflight = 4.0, .queue_wait_s = 2.0}));  // the other had one then
  EXPECT_EQ(fleet.inflight(node), 5u);
  EXPECT_FLOAT_EQ(static_cast<float>(fleet.wait_s(node)), 2.5f);
}

/// Threads that reserve, others that signal what the node has of itself, one that comes and goes: in the end the
/// figures are the last signal's and ours since, and nothing when all is released.
TEST(FleetThreads, SignalsWhileOthersReserve) {
  constexpr std::uint32_t n_nodes = 3, rounds = 3000, n_writers = 2;
  Fleet fleet(64);
  for (std::uint32_t i = 0; i < n_nodes; ++i) fleet.add(node_with("n" + std::to_string(i), 0));
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (std::uint32_t writer = 0; writer < n_writers; ++writer) {
    writers.emplace_back([&, writer] {
      for (std::uint32_t i = 0; i < rounds; ++i) {
        const NodeId node{(i * 7 + writer) % n_nodes};
        fleet.reserve(node, 0.001, 10 * i);
        EXPECT_GE(fleet.wait_s(node), 0.0);
        fleet.release(node, 0.001, 10 * i + 5);
      }
    });
  }
  std::thread signals([&] {
    for (base::TimeNs at_ns = 0; !stop.load(std::memory_order_relaxed); ++at_ns)
      for (NodeId node{0}; node.value < n_nodes; ++node.value)
        fleet.signal(node, {.as_of_ns = 10 * at_ns, .inflight = 2.0, .cpu = 0.5, .queue_wait_s = 0.25});
  });
  for (std::thread& writer : writers) writer.join();
  stop.store(true, std::memory_order_relaxed);
  signals.join();
  for (NodeId node{0}; node.value < n_nodes; ++node.value) {
    contracts::Credit own;
    Signal last;
    fleet.read(node, own, last);
    EXPECT_EQ(own.inflight, 0);
    EXPECT_EQ(own.reserved_ns, 0);
    EXPECT_TRUE(fleet.signal(node, {.as_of_ns = 1'000'000'000, .inflight = 3.0, .queue_wait_s = 0.5}));
    EXPECT_EQ(fleet.inflight(node), 3u);
    EXPECT_FLOAT_EQ(static_cast<float>(fleet.wait_s(node)), 0.5f);
  }
}

class SharedFleet : public testing::Test {
 protected:
  static constexpr base::TimeNs heartbeat_ns = 1000;
  std::unique_ptr<Fleet> open(base::TimeNs now_ns = 0, std::uint32_t max_nodes = 64) {
    return std::make_unique<Fleet>(name, max_nodes, 32, heartbeat_ns, now_ns);
  }
  std::string name = "test-native-" + std::to_string(getpid());
};

TEST_F(SharedFleet, WhatOneChangesAllSee) {
  const auto a = open(), b = open();
  EXPECT_EQ(a->n_processes(), 2u);
  NodeSpec spec = node_with("n\xc3\xa4me", 1 << 30);
  spec.zone = "z1";
  spec.price_per_hour = 2.5;
  spec.slots = 2;
  spec.pending_max = 9;
  spec.labels = {{"rack", "7"}};
  const NodeId node = a->add(spec);
  EXPECT_EQ(b->find(spec.name), node);
  EXPECT_EQ(b->spec(node).zone, "z1");
  EXPECT_EQ(b->spec(node).labels, spec.labels);
  EXPECT_EQ(b->spec(node).slots, 2u);
  EXPECT_EQ(b->pending_max(node), 9u);
  const ModelId model = a->model_id("m", 3);
  EXPECT_EQ(b->model_id("m", 3), model);
  EXPECT_EQ(b->model_name(model), "m");
  b->load_model(node, model);
  EXPECT_TRUE(a->resident(node, model));
  EXPECT_EQ(a->label_bits({{"rack", "7"}}, false), b->label_bits({{"rack", "7"}}, false));
  EXPECT_THROW(b->add(node_with(spec.name, 0)), InvalidArgument);
  b->reserve(node, 1.0, 1);
  EXPECT_EQ(a->inflight(node), 1u);
  a->signal(node, {.as_of_ns = 5, .inflight = 4.0});
  EXPECT_EQ(b->inflight(node), 4u);
  a->reserve(node, 1.0, 6);
  b->release(node, 1.0, 7);
  EXPECT_EQ(b->inflight(node), 4u) << "4 at its time, one more of a, one less of b";
  a->remove(node);
  EXPECT_EQ(b->find(spec.name), base::no_node);
  EXPECT_EQ(b->add(node_with("other", 0)).value, 1u) << "the id waits for a's credit";
}

TEST_F(SharedFleet, CreditOfWhoFallsSilentIsTakenBackUntilTheNextSign) {
  const auto a = open(), b = open();
  const NodeId node = a->add(node_with("n", 0));
  a->reserve(node, 1.0, 0);
  b->reserve(node, 1.0, 0);
  a->beat(heartbeat_ns);
  EXPECT_EQ(a->inflight(node), 2u) << "not yet silent for longer than that";
  a->beat(heartbeat_ns + 1);
  EXPECT_EQ(a->inflight(node), 1u);
  EXPECT_FLOAT_EQ(static_cast<float>(a->wait_s(node)), 1.0f);
  EXPECT_EQ(a->n_processes(), 1u);
  b->release(node, 0.0, heartbeat_ns + 2);  // it lives: a sign
  EXPECT_EQ(a->n_processes(), 2u);
  EXPECT_EQ(a->inflight(node), 1u);
}

TEST_F(SharedFleet, WhoLeavesTakesItsCreditAndTheLastTheName) {
  auto a = open();
  const NodeId node = a->add(node_with("n", 0));
  auto b = open();
  b->reserve(node, 1.0, 0);
  EXPECT_EQ(a->inflight(node), 1u);
  b.reset();
  EXPECT_EQ(a->inflight(node), 0u);
  a.reset();
  EXPECT_EQ(open()->n_nodes(), 0u) << "another fleet";
}

TEST_F(SharedFleet, ASlotThatAnotherHasNowIsLeftToIt) {
  const auto a = open();
  const NodeId node = a->add(node_with("n", 0));
  const auto silent = open();
  silent->reserve(node, 1.0, 0);
  std::vector<std::unique_ptr<Fleet>> others;
  a->beat(2 * heartbeat_ns);
  while (a->n_processes() < contracts::FleetColumns::processes_max) others.push_back(open(2 * heartbeat_ns));
  others.back()->reserve(node, 1.0, 2 * heartbeat_ns);
  EXPECT_THROW(open(2 * heartbeat_ns), InvalidArgument) << "all slots are taken";
  others.front().reset();
  silent->beat(2 * heartbeat_ns);
  silent->release(node, 1.0, 2 * heartbeat_ns);  // what it reserved is gone; nothing else is taken
  EXPECT_EQ(a->inflight(node), 1u);
  others.back()->release(node, 1.0, 2 * heartbeat_ns);
  EXPECT_EQ(a->inflight(node), 0u);
  silent->reserve(node, 1.0, 2 * heartbeat_ns);
  EXPECT_EQ(a->inflight(node), 1u);
}

TEST_F(SharedFleet, Refusals) {
  const auto a = open();
  EXPECT_THROW(open(0, 65), InvalidArgument);
  EXPECT_THROW(Fleet("../x", 64, 32, 1, 0), InvalidArgument);
  EXPECT_THROW(Fleet("", 64, 32, 1, 0), InvalidArgument);
  EXPECT_THROW(Fleet(name, 64, 32, heartbeat_ns + 1, 0), InvalidArgument);
  EXPECT_THROW(a->add(node_with(std::string(255, 'n'), 0)), InvalidArgument);
  EXPECT_THROW(a->model_id(std::string(200, 'm'), 1), InvalidArgument);
  EXPECT_EQ(a->n_models(), 0u);
  EXPECT_EQ(a->n_nodes(), 0u);
  EXPECT_TRUE(a->unlink());
  EXPECT_FALSE(a->unlink());
  const NodeId node = a->add(node_with("n", 0));
  EXPECT_EQ(open()->find("n"), base::no_node) << "the name is another fleet's now";
  EXPECT_EQ(a->find("n"), node);
}

}  // namespace
}  // namespace infcore::route
