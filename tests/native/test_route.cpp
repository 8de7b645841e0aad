// Latency table, leases, fleet and views where Python cannot look: ids reused, threads, columns.
#include <infcore/base/errors.hpp>
#include <infcore/contracts/latency_table.hpp>
#include <infcore/route/leases.hpp>
#include <infcore/route/routing_policy.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace infcore::route {
namespace {

using contracts::BatchShape;
using contracts::Curve;
using contracts::LatencyTable;

NodeSpec node_named(const std::string& name) {
  NodeSpec spec;
  spec.name = name;
  return spec;
}

BatchShape batch_of(std::uint32_t n, double work) { return {n, n * work, work}; }

TEST(LatencyTable, PairsWithoutAPeerStayUnknown) {
  LatencyTable table(4, 2);
  table.observe(ModelId{0}, NodeId{0}, batch_of(4, 1.0), 0.2);
  EXPECT_NEAR(table.at(ModelId{0}, NodeId{0}).service_s(batch_of(4, 1.0)), 0.2, 0.01);
  EXPECT_DOUBLE_EQ(table.at(ModelId{0}, NodeId{1}).service_s(batch_of(4, 1.0)), 1e-3);
  EXPECT_DOUBLE_EQ(table.at(ModelId{1}, NodeId{0}).service_s(batch_of(4, 1.0)), 1e-3);
}

TEST(LatencyTable, PeersFollowUntilTheySpeakForThemselves) {
  LatencyTable table(4, 1);
  const ModelId model{0};
  for (std::uint32_t node = 0; node < 3; ++node) table.set_class(NodeId{node}, 7);
  table.set_prior(model, NodeId{2}, Curve{.base_s = 5.0});
  for (int i = 0; i < 64; ++i) table.observe(model, NodeId{0}, batch_of(1, 1.0), 0.2);
  EXPECT_NEAR(table.at(model, NodeId{1}).service_s(batch_of(1, 1.0)), 0.2, 0.01);
  EXPECT_DOUBLE_EQ(table.at(model, NodeId{2}).service_s(batch_of(1, 1.0)), 5.0) << "a given curve stays";
  for (int i = 0; i < 20; ++i) table.observe(model, NodeId{1}, batch_of(1, 1.0), 0.6);
  for (int i = 0; i < 64; ++i) table.observe(model, NodeId{0}, batch_of(1, 1.0), 0.2);
  EXPECT_NEAR(table.at(model, NodeId{1}).service_s(batch_of(1, 1.0)), 0.6, 0.03);
  table.set_class(NodeId{3}, 7);
  EXPECT_NEAR(table.at(model, NodeId{3}).service_s(batch_of(1, 1.0)), 0.2, 0.01) << "the best observed peer";
}

TEST(LatencyTable, ForgetsANodeAndAModel) {
  LatencyTable table(2, 2);
  for (std::uint32_t model = 0; model < 2; ++model)
    for (std::uint32_t node = 0; node < 2; ++node) table.observe(ModelId{model}, NodeId{node}, batch_of(1, 1.0), 0.5);
  table.forget(NodeId{0});
  table.forget(ModelId{1});
  EXPECT_EQ(table.at(ModelId{0}, NodeId{0}).n_observed(), 0u);
  EXPECT_EQ(table.at(ModelId{0}, NodeId{1}).n_observed(), 1u);
  EXPECT_EQ(table.at(ModelId{1}, NodeId{1}).n_observed(), 0u);
  EXPECT_FLOAT_EQ(table.single(ModelId{1}).fixed_us[1], 1000.0f);
}

TEST(LatencyTable, ColumnsSayWhatModelsSay) {
  LatencyTable table(3, 1);
  for (std::uint32_t n = 1; n <= 40; ++n)
    table.observe(ModelId{0}, NodeId{1}, batch_of(n, 2.0 + n % 3), 0.01 + 0.002 * n * (2.0 + n % 3));
  const auto columns = table.single(ModelId{0});
  for (const double work : {0.0, 1.0, 10.0}) {
    const auto& model = table.at(ModelId{0}, NodeId{1});
    const double service_us = columns.fixed_us[1] + columns.per_work_us[1] * work;
    EXPECT_NEAR(service_us, 1e6 * model.service_s(batch_of(1, work)), 1.0);
    EXPECT_NEAR(service_us * (1.0 + columns.tail[1]), 1e6 * model.upper_s(batch_of(1, work)), 1.0);
  }
}

/// The table as a list of models, each follower told by itself: what the table's shared curves must come to.
struct PlainTable {
  explicit PlainTable(std::uint32_t n) : models(n), given(n), classes(n, none) {}
  static constexpr std::uint32_t none = ~0u;

  void tell(std::uint32_t node, const contracts::LatencyModel& like) {
    if (!given[node] && models[node].n_observed() == 0)
      models[node] = contracts::LatencyModel(like.curve(), like.spread());
  }
  void set_class(std::uint32_t node, std::uint32_t device_class) {
    classes[node] = device_class;
    const contracts::LatencyModel* best = nullptr;
    for (std::uint32_t peer = 0; peer < models.size(); ++peer) {
      if (peer == node || classes[peer] != device_class || models[peer].n_observed() == 0) continue;
      if (best == nullptr || models[peer].n_observed() > best->n_observed()) best = &models[peer];
    }
    if (best != nullptr) tell(node, *best);
  }
  void observe(std::uint32_t node, const BatchShape& shape, double service_s) {
    models[node].observe(shape, service_s);
    if (classes[node] == none || !std::has_single_bit(models[node].n_observed())) return;
    for (std::uint32_t peer = 0; peer < models.size(); ++peer)
      if (peer != node && classes[peer] == classes[node]) tell(peer, models[node]);
  }

  std::vector<contracts::LatencyModel> models;
  std::vector<bool> given;
  std::vector<std::uint32_t> classes;
};

TEST(LatencyTable, FollowersHaveWhatEachWouldHaveBeenTold) {
  constexpr std::uint32_t n_nodes = 7;
  std::mt19937 draw(1);
  const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(draw() % n); };
  const ModelId model{0};
  for (int round = 0; round < 200; ++round) {
    LatencyTable table(n_nodes, 1);
    PlainTable plain(n_nodes);
    table.set_prior(model, NodeId{0}, Curve{.base_s = 1.0});  // so that the table has the model's row, too
    plain.models[0] = contracts::LatencyModel(Curve{.base_s = 1.0});
    plain.given[0] = true;
    for (int i = 0; i < 60; ++i) {
      const std::uint32_t node = below(n_nodes), what = below(16);
      if (what < 3) {
        const std::uint32_t device_class = below(3);
        table.set_class(NodeId{node}, device_class);
        plain.set_class(node, device_class);
      } else if (what == 3) {
        const Curve curve{.base_s = 0.1 * (1 + below(9))};
        table.set_prior(model, NodeId{node}, curve);
        plain.models[node] = contracts::LatencyModel(curve);
        plain.given[node] = true;
      } else if (what == 4) {
        table.forget(NodeId{node});
        plain.models[node] = {};
        plain.given[node] = false;
        plain.classes[node] = PlainTable::none;
      } else {
        const double service_s = 0.01 * (1 + below(50)) - (what == 5 ? 1.0 : 0.0);  // below 0: not usable
        const BatchShape shape = batch_of(1 + below(4), 1.0);
        table.observe(model, NodeId{node}, shape, service_s);
        plain.observe(node, shape, service_s);
      }
      const contracts::BatchColumns batch = table.batch(model);
      const contracts::SingleRequestColumns single = table.single(model);
      for (std::uint32_t n = 0; n < n_nodes; ++n) {
        const contracts::LatencyModel &is = table.at(model, NodeId{n}), &should = plain.models[n];
        ASSERT_EQ(is.n_observed(), should.n_observed());
        ASSERT_EQ(is.spread(), should.spread());
        for (const std::uint32_t size : {1u, 5u})
          ASSERT_EQ(is.service_s(batch_of(size, 2.0)), should.service_s(batch_of(size, 2.0)));
        ASSERT_EQ(batch.base_s[n], static_cast<float>(std::clamp(should.curve().base_s, 1e-12, 1e9)));
        ASSERT_EQ(single.tail[n], static_cast<float>(contracts::LatencyModel::upper_spreads * should.spread()));
      }
    }
  }
}

TEST(Leases, EndOnceInOrderAndOutliveTheirSlot) {
  Leases<int> leases;
  std::vector<int> ended;
  const auto note = [&](int item, base::TimeNs) { ended.push_back(item); };
  const auto a = leases.add(1, 30);
  const auto b = leases.add(2, 10);
  leases.add(3, 20);
  leases.end_due(9, note);
  EXPECT_TRUE(ended.empty());
  EXPECT_TRUE(leases.end(b));
  EXPECT_FALSE(leases.end(b));
  const auto d = leases.add(4, 40);  // in b's slot, whose end time is still on the heap
  leases.end_due(30, note);
  EXPECT_EQ(ended, (std::vector<int>{3, 1}));
  EXPECT_FALSE(leases.end(a));
  EXPECT_TRUE(leases.end(d));
  leases.end_due(base::never_ns - 1, note);
  EXPECT_EQ(ended.size(), 2u);
}

/// What is kept does not grow with the requests of a lease's length, and end times stay in order.
TEST(Leases, ManyThatEndEarlyAreForgotten) {
  Leases<int> leases;
  std::vector<int> ended;
  const auto note = [&](int item, base::TimeNs) { ended.push_back(item); };
  const auto held = leases.add(1, 1'000'000);
  for (int i = 0; i < 100'000; ++i) {
    const auto brief = leases.add(-1, 900'000 + i);
    leases.add(i, i + 1);
    EXPECT_TRUE(leases.end(brief));
    leases.end_due(i + 1, note);
    ASSERT_LE(leases.n_ends(), 200u);
  }
  EXPECT_EQ(ended.size(), 100'000u);
  leases.end_due(999'999, note);
  EXPECT_EQ(ended.size(), 100'000u);
  leases.end_due(1'000'000, note);
  EXPECT_EQ(ended.back(), 1);
  EXPECT_FALSE(leases.end(held));
  EXPECT_EQ(leases.first_end_ns(), base::never_ns);
}

TEST(Fleet, KindsAreEqualForEqualKindsOnly) {
  Fleet fleet(8);
  const auto add = [&](const char* name, const char* kind) {
    NodeSpec spec = node_named(name);
    spec.kind = kind;
    return fleet.add(spec);
  };
  const NodeId a = add("a", "gpu");
  const NodeId b = add("b", "gpu");
  const NodeId c = add("c", "cpu");
  EXPECT_EQ(fleet.kind_id(a), fleet.kind_id(b));
  EXPECT_NE(fleet.kind_id(a), fleet.kind_id(c));
  fleet.remove(a);
  const NodeId d = add("d", "tpu");
  EXPECT_EQ(d, a) << "the lowest free id";
  EXPECT_NE(fleet.kind_id(d), fleet.kind_id(b));
  EXPECT_NE(fleet.kind_id(d), fleet.kind_id(c));
}

TEST(Fleet, LostAndBack) {
  Fleet fleet(2);
  const ModelId model = fleet.model_id("m", 1);
  const NodeId node = fleet.add(node_named("a"));
  fleet.load_model(node, model);
  LatencyTable latency(2, fleet.max_models());
  RouteView view(fleet, latency);
  const RouteQuery query{.model = model};
  const std::uint64_t version = fleet.version();
  fleet.set_state(node, NodeState::lost);
  EXPECT_GT(fleet.version(), version);
  EXPECT_FALSE(view.filter(query));
  EXPECT_EQ(view.why_not(query, node), Filtered::not_up);
  fleet.set_state(node, NodeState::up);
  EXPECT_TRUE(view.filter(query));
  EXPECT_THROW(fleet.set_state(NodeId{1}, NodeState::up), UnknownName);
}

TEST(Fleet, CreditOfOddFiguresStaysFinite) {
  Fleet fleet(1);
  const NodeId node = fleet.add(node_named("a"));
  for (const double s : {std::numeric_limits<double>::infinity(), 1e300, -1.0, 0.0, 1e-12}) {
    fleet.reserve(node, s);
    EXPECT_TRUE(std::isfinite(fleet.wait_s(node)));
    fleet.release(node, s);
    EXPECT_EQ(fleet.wait_s(node), 0.0);
    EXPECT_EQ(fleet.inflight(node), 0u);
  }
}

/// Writers of the same rows, a reader that selects all the while: no credit is lost, and the reader's copy ends equal
/// to the fleet's figures. Under the thread sanitizer this is also the check of signal locks.
TEST(Fleet, ViewsSeeEveryChangeInTheEnd) {
  constexpr std::uint32_t n_nodes = 40;
  constexpr int rounds = 2000;
  Fleet fleet(64);
  const ModelId model = fleet.model_id("m", 1);
  for (std::uint32_t i = 0; i < n_nodes; ++i) fleet.load_model(fleet.add(node_named("n" + std::to_string(i))), model);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (unsigned writer = 0; writer < 3; ++writer) {
    threads.emplace_back([&fleet, writer] {
      for (int i = 0; i < rounds; ++i) {
        const NodeId node{(static_cast<std::uint32_t>(i) * 7 + writer) % n_nodes};
        fleet.reserve(node, 0.001 * (i % 5), i);
        if (i % 3 == 0) fleet.signal(node, {.as_of_ns = i, .gpu = (i % 10) / 10.0});
        if (i % 4 != 0) fleet.release(node, 0.001 * (i % 5), i);
      }
    });
  }
  threads.emplace_back([&] {
    for (int i = 0; i < 200; ++i) {
      const NodeId extra = fleet.add(node_named("extra"));
      fleet.load_model(extra, model);
      fleet.remove(extra);
    }
  });
  LatencyTable latency(64, fleet.max_models());
  RouteView view(fleet, latency);
  const auto policy = make_routing_policy("fastest_finish", 0);
  std::thread reader([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const NodeId node = policy->select({.model = model}, view);
      EXPECT_LE(node.value, n_nodes);
    }
  });
  for (std::thread& thread : threads) thread.join();
  stop.store(true, std::memory_order_relaxed);
  reader.join();

  std::uint32_t left = 0;
  for (NodeId node{0}; node.value < n_nodes; ++node.value) {
    left += fleet.inflight(node);
    EXPECT_NEAR(view.terms({.model = model}, node).wait_us, fleet.wait_s(node) * 1e6, 1e-3);
  }
  EXPECT_EQ(left, 3u * rounds / 4);
}

}  // namespace
}  // namespace infcore::route
