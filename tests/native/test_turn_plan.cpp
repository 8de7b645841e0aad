// TurnPlan: which queue a device serves first, by how many of those that wait are then in time.
#include <infcore/engine/turn_plan.hpp>

#include <gtest/gtest.h>

namespace infcore::engine {
namespace {

using base::TimeNs;
constexpr TimeNs ms = 1'000'000;
constexpr contracts::Curve quick{.base_s = 0.001, .per_request_s = 0.0001};
constexpr contracts::Curve slow{.base_s = 0.004, .per_request_s = 0.0004};

void add(TurnPlan& plan, const contracts::Curve& curve, int n, TimeNs deadline_ns, TimeNs arrival_ns = 0) {
  plan.add_queue(curve, 1.0, 64);
  for (int i = 0; i < n; ++i) plan.add({deadline_ns, arrival_ns});
}

TEST(TurnPlan, EarliestDeadlineGoesFirstWhereNobodyIsLost) {
  TurnPlan plan;
  add(plan, slow, 10, 10 * ms);
  add(plan, quick, 64, 20 * ms);  // 8 and 7.4 ms
  EXPECT_EQ(plan.best(0), 0u);
}

TEST(TurnPlan, FewWhoTakeLongDoNotCostManyWhoDoNot) {
  TurnPlan plan;
  add(plan, slow, 14, 10 * ms);   // 9.6 ms
  add(plan, quick, 64, 12 * ms);  // 7.4 ms: all 64 are in time, or 14 of the others and 14 of these
  EXPECT_EQ(plan.best(0), 1u);
}

TEST(TurnPlan, ManyWhoTakeLongAreNotGivenUpForFew) {
  TurnPlan plan;
  add(plan, slow, 14, 10 * ms);
  add(plan, quick, 10, 10 * ms);  // 2 ms: these, and then 9 of the others; or 14 and none of these
  EXPECT_EQ(plan.best(0), 1u);
  plan.clear();
  add(plan, slow, 14, 10 * ms);
  add(plan, quick, 3, 10 * ms);  // 1.3 ms: these and 11 of the others are 14 too, and among equals the first goes first
  EXPECT_EQ(plan.best(0), 0u);
}

TEST(TurnPlan, WhoIsTooLateAnywayCountsForNobody) {
  TurnPlan plan;
  add(plan, slow, 64, 4 * ms);  // one alone takes 4.4 ms
  add(plan, quick, 1, 2 * ms);
  add(plan, quick, 1, 3 * ms);
  EXPECT_EQ(plan.best(0), 0u);  // passed over; 1.1 ms for each of the others
  plan.clear();
  add(plan, slow, 64, 5 * ms);  // 1 or 2 of them, and then nobody else
  add(plan, quick, 4, 2 * ms);
  EXPECT_EQ(plan.best(0), 1u);
}

TEST(TurnPlan, ABatchTakesAsManyAsItsFirstIsInTimeWith) {
  TurnPlan plan;
  plan.add_queue(quick, 1.0, 64);
  for (int i = 0; i < 18; ++i) plan.add({28 * ms / 10, 0});  // 2.8 ms, and with the next four 3.2: these would be late
  for (int i = 0; i < 4; ++i) plan.add({100 * ms, 0});
  add(plan, quick, 10, 49 * ms / 10);  // 2 ms
  EXPECT_EQ(plan.best(0), 0u);
}

TEST(TurnPlan, FirstComeFirstServedIsPlayedThroughToo) {
  TurnPlan plan;
  add(plan, quick, 5, 3 * ms, 1);         // 1.5 ms
  add(plan, slow, 5, 9 * ms, 3);          // 6 ms: by deadline its turn is next, and costs the third queue 54
  add(plan, quick, 64, 95 * ms / 10, 2);  // 7.4 ms: 5 and these, by arrival; else these alone are most
  EXPECT_EQ(plan.best(0), 0u);
}

}  // namespace
}  // namespace infcore::engine
