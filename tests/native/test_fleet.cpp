// The fleet table where Python cannot look: the columns of load costs, the words of a row.
#include <infcore/base/errors.hpp>
#include <infcore/route/fleet.hpp>

#include <gtest/gtest.h>

#include <limits>
#include <string>
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
  fleet.drain(node);
  EXPECT_FALSE(moved());
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

}  // namespace
}  // namespace infcore::route
