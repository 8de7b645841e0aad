// The scoring loops against the scalar arithmetic that explain uses: same bits for every set of parts; bounds of
// requests in flight; sessions' names.
#include <infcore/base/draw.hpp>
#include <infcore/base/errors.hpp>
#include <infcore/contracts/latency_table.hpp>
#include <infcore/contracts/session_hash.hpp>
#include <infcore/route/router.hpp>
#include <infcore/route/score.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

namespace infcore::route {
namespace {

constexpr float none = std::numeric_limits<float>::infinity();

struct Columns {
  explicit Columns(std::uint32_t n, base::Draw& draw) : figures(10, std::vector<float>((n + 63) / 64 * 64)) {
    for (std::uint32_t column = 0; column < 10; ++column)
      for (float& figure : figures[column]) figure = static_cast<float>(draw.uniform() * scale[column]);
    for (float& load_us : figures[9]) load_us = draw.uniform() < 0.2 ? none : draw.uniform() < 0.5 ? 0.0f : load_us;
    for (float& held : figures[8]) held = static_cast<float>(static_cast<int>(held));
  }
  [[nodiscard]] ScoreColumns all() const {
    const auto at = [this](std::size_t i) { return figures[i].data(); };
    return {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9)};
  }
  [[nodiscard]] NodeFigures of(std::uint32_t i) const {
    const auto at = [this, i](std::size_t column) { return figures[column][i]; };
    return {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9)};
  }
  static constexpr std::array<double, 10> scale{1000, 4, 0.5, 300, 500, 20, 0.5, 12, 9, 2000};
  std::vector<std::vector<float>> figures;
};

float passing_cost(const NodeFigures& figures, const ScoreQuery& q) {
  const NodeScore s = NodeScore::of(figures, q);
  return (q.parts & ScoreParts::deadline) != 0 && s.upper_us > q.budget_us ? none : s.cost_us;
}

TEST(Score, LoopsAgreeWithTheScalarToTheBit) {
  base::Draw draw(7);
  for (unsigned parts = 0; parts < ScoreParts::n_sets; ++parts) {
    for (const std::uint32_t n : {1u, 31u, 64u, 65u, 200u, 1000u}) {
      const Columns columns(n, draw);
      const ScoreQuery q{parts, 3.5f, static_cast<float>(500 + draw.uniform() * 2000), 0.03f, 1500.0f, 2.0f};
      std::vector<std::uint64_t> mask((n + 63) / 64);
      for (std::uint32_t i = 0; i < n; ++i)
        if (draw.uniform() < 0.7) mask[i / 64] |= std::uint64_t{1} << (i % 64);
      std::vector<float> cost_us(mask.size() * 64, -1.0f);
      costs(columns.all(), q, mask.data(), n, cost_us.data());
      std::vector<std::uint64_t> kept = mask;
      keep_within(columns.all(), q, 900.0f, kept.data(), n);
      Least expected{none, 0};
      for (std::uint32_t i = 0; i < n; ++i) {
        const bool in = (mask[i / 64] >> (i % 64) & 1) != 0;
        const float value = in ? passing_cost(columns.of(i), q) : none;
        ASSERT_EQ(cost_us[i], value) << parts << ' ' << n << ' ' << i;
        if (value < expected.value) expected = {value, i};
        const NodeScore s = NodeScore::of(columns.of(i), q);
        const bool late = (parts & ScoreParts::deadline) != 0 && s.upper_us > q.budget_us;
        ASSERT_EQ((kept[i / 64] >> (i % 64) & 1) != 0, in && !late && s.standing_us <= 900.0f) << parts << ' ' << i;
      }
      std::vector<float> standing_us(mask.size() * 64, none), without_risk_us(standing_us);
      const ScoreNotes noted{standing_us.data(), without_risk_us.data()};
      for (const Least least :
           {least_cost(columns.all(), q, mask.data(), n), least_cost_noting(columns.all(), q, mask.data(), n, noted),
            least_cost_noted(columns.all(), q, mask.data(), n, without_risk_us.data())}) {
        ASSERT_EQ(least.value, expected.value);
        if (least.value != none) {
          ASSERT_EQ(least.node, expected.node);
        }
      }
      std::vector<std::uint64_t> kept_of_noted = mask;
      keep_at_most(standing_us.data(), 900.0f, kept_of_noted.data(), n);
      ASSERT_EQ(kept_of_noted, kept) << parts << ' ' << n;
    }
  }
}

TEST(Score, TiesGoToTheLowestId) {
  std::vector<float> column(256, 5.0f);
  std::vector<std::uint64_t> mask(4, ~std::uint64_t{0});
  mask[0] = 0;
  EXPECT_EQ(least_of(column.data(), mask.data(), 256).node, 64u);
  column[130] = column[250] = 1.0f;
  EXPECT_EQ(least_of(column.data(), mask.data(), 256).node, 130u);
}

TEST(Score, TermsAddUpAndHaveTheirSigns) {
  base::Draw draw(3);
  const Columns columns(500, draw);
  for (std::uint32_t i = 0; i < 500; ++i) {
    const NodeScore s = NodeScore::of(columns.of(i), {15, 7.0f, 3000.0f, 0.05f, 3000.0f, 2.0f});
    if (s.cost_us == none) continue;
    EXPECT_GE(s.service_us, s.saving_us);
    for (const float term : {s.wait_us, s.service_us, s.pressure_us, s.load_us, s.network_us, s.saving_us, s.price_us,
                             s.risk_us, s.cost_us})
      EXPECT_GE(term, 0.0f);
    EXPECT_LE(s.risk_us, 3000.0f);
    const double sum = double{s.wait_us} + s.service_us + s.pressure_us + s.load_us + s.network_us - s.saving_us +
                       s.price_us + s.risk_us;
    EXPECT_NEAR(sum, s.cost_us, 1e-6 * (sum + s.saving_us));
  }
}

TEST(Score, RiskGrowsWithSpreadAndShrinksWithSlack) {
  const auto risk = [](float tail, float budget_us) {
    return NodeScore::of({0, 0, 0, 0, 1000, 0, tail, 0, 0, 0}, {3, 1.0f, budget_us, 0, 1000.0f, 0}).risk_us;
  };
  EXPECT_EQ(risk(0.0f, 1000.0f), 0.0f) << "no slack, but no spread either";
  EXPECT_GT(risk(0.2f, 2000.0f), risk(0.1f, 2000.0f));
  EXPECT_GT(risk(0.2f, 1300.0f), risk(0.2f, 2000.0f));
  EXPECT_NEAR(risk(2.33f, 2000.0f), 500.0f, 0.1f) << "one deviation of slack: at most one half is late";
}

struct Rig {
  explicit Rig(std::uint32_t n) : fleet(n), model(fleet.model_id("m", 1)) {
    for (std::uint32_t i = 0; i < n; ++i) {
      NodeSpec spec;
      spec.name = std::to_string(i);
      fleet.load_model(fleet.add(spec), model);
    }
  }
  Fleet fleet;
  ModelId model;
};

TEST(Route, WhoIsAtItsBoundIsNoCandidateUnderAnyPolicy) {
  for (const std::string& policy : routing_policies()) {
    Rig rig(3);
    Router router(rig.fleet, policy, 1);
    const RouteQuery query{.model = rig.model};
    rig.fleet.bound_pending(NodeId{0}, 2);
    rig.fleet.bound_pending(NodeId{1}, 1);
    rig.fleet.set_state(NodeId{2}, NodeState::ejected);
    std::array<Decision, 4> decisions;
    for (std::size_t i = 0; i < 3; ++i) router.pick(query, {}, decisions[i]);
    EXPECT_EQ(rig.fleet.inflight(NodeId{0}), 2u) << policy;
    EXPECT_EQ(rig.fleet.inflight(NodeId{1}), 1u) << policy;
    try {
      router.pick(query, {}, decisions[3]);
      ADD_FAILURE() << policy << " went beyond a bound";
    } catch (const NoNodeAvailable& e) {
      EXPECT_STREQ(e.what(), "no node for model 'm': of 3 nodes, 1 ejected, 2 at their bound of requests in flight");
    }
    std::vector<Explanation> explanations;
    router.explain(query, {}, explanations);
    EXPECT_EQ(explanations[0].filtered, Filtered::full);
    EXPECT_EQ(explanations[2].filtered, Filtered::not_up);
    ASSERT_TRUE(router.cancel(decisions[0], 0));
    router.pick(query, {}, decisions[3]);
    EXPECT_EQ(decisions[3].node, decisions[0].node) << policy;
    rig.fleet.bound_pending(NodeId{0}, 0);
    router.pick(query, {}, decisions[0]);
    EXPECT_EQ(decisions[0].node, NodeId{0}) << policy;
  }
}

TEST(Sessions, NamesDifferAndStayWhatTheyAre) {
  using contracts::session_hash;
  std::set<std::uint64_t> names;
  std::uint32_t n = 0;
  for (std::uint64_t i = 0; i < 2000; ++i, ++n) names.insert(session_hash(i));
  std::string text;
  for (int i = 0; i < 40; ++i, ++n) {
    names.insert(session_hash(text.data(), text.size()));
    text += i % 2 == 0 ? '\0' : 'a';
  }
  EXPECT_EQ(names.size(), n);
  EXPECT_EQ(names.count(0), 0u);
  EXPECT_EQ(session_hash("session", 7), session_hash(std::string("session").data(), 7));
}

}  // namespace
}  // namespace infcore::route
