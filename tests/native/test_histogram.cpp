#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <infcore/base/errors.hpp>
#include <infcore/telemetry/histogram.hpp>
#include <latch>
#include <limits>
#include <random>
#include <thread>
#include <vector>

namespace {

using infcore::telemetry::Histogram;

std::vector<double> lognormal(std::size_t n, unsigned seed) {
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> values(-6.0, 2.0);
  std::vector<double> out(n);
  for (double& value : out) value = values(random);
  return out;
}

TEST(Histogram, EachValueIsInsideItsBucket) {
  const Histogram h;
  for (const double value : lognormal(10000, 1)) {
    const std::size_t bucket = h.bucket_of(value);
    EXPECT_LE(h.bucket_lower_s(bucket), value);
    EXPECT_GT(h.bucket_lower_s(bucket + 1), value);
  }
}

TEST(Histogram, BucketsAreNarrowAndWithoutGaps) {
  const Histogram h;
  for (std::size_t i = 0; i < h.n_buckets(); ++i) {
    const double lower = h.bucket_lower_s(i);
    const double upper = h.bucket_lower_s(i + 1);
    ASSERT_LT(lower, upper);
    ASSERT_LE((upper - lower) / lower, 1.0 / 128.0);
    // The least double of a range lies above the lower bound of its first bucket.
    ASSERT_EQ(h.bucket_of(std::max(lower, h.min_s())), i);
  }
  EXPECT_EQ(h.bucket_of(3600.0), h.n_buckets() - 1);
  EXPECT_LE(h.bytes(), Histogram::bytes_max);
}

TEST(Histogram, QuantilesAreWithinOnePercentOfTheSortedValues) {
  std::vector<double> values = lognormal(200000, 2);
  Histogram h;
  for (const double value : values) h.record(value);
  std::ranges::sort(values);
  for (const double q : {0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0}) {
    const double position = q * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const std::size_t above = std::min(below + 1, values.size() - 1);
    const double exact = std::lerp(values[below], values[above], position - static_cast<double>(below));
    EXPECT_NEAR(h.quantile(q), exact, 0.004 * exact) << q;
  }
  EXPECT_EQ(h.quantile(0.0), values.front());
  EXPECT_EQ(h.quantile(1.0), values.back());
}

TEST(Histogram, OutOfRangeAndNotANumberStayInTheArray) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  Histogram h(1e-3, 1.0);
  for (const double value : {0.0, -1.0, -inf, std::nan(""), -std::nan(""), 5e-324}) h.record(value);
  for (const double value : {2.0, inf, std::numeric_limits<double>::max()}) h.record(value);
  h.record_ns(std::numeric_limits<std::int64_t>::min());
  h.record_ns(std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(h.count(), 11u);
  EXPECT_EQ(h.bucket_count(0), 7u);
  EXPECT_EQ(h.bucket_count(h.n_buckets() - 1), 4u);
  EXPECT_EQ(h.lowest_s(), 1e-3);
  EXPECT_EQ(h.highest_s(), 1.0);
}

TEST(Histogram, EmptyHasNoQuantile) {
  const Histogram h;
  EXPECT_EQ(h.count(), 0u);
  EXPECT_EQ(h.sum_s(), 0.0);
  for (const double value : {h.quantile(0.5), h.mean_s(), h.lowest_s(), h.highest_s()}) EXPECT_TRUE(std::isnan(value));
}

TEST(Histogram, OneValueIsExact) {
  Histogram h;
  for (int i = 0; i < 3; ++i) h.record(0.1);
  EXPECT_EQ(h.mean_s(), 0.1);
  EXPECT_EQ(h.quantile(0.37), 0.1);
}

TEST(Histogram, MergeIsTheUnionAndACopyIsApart) {
  Histogram all;
  Histogram left;
  Histogram right;
  const std::vector<double> values = lognormal(5000, 3);
  for (std::size_t i = 0; i < values.size(); ++i) {
    all.record(values[i]);
    (i % 3 == 0 ? left : right).record(values[i]);
  }
  const Histogram before(left);
  left.merge(right);
  for (std::size_t i = 0; i < all.n_buckets(); ++i) ASSERT_EQ(left.bucket_count(i), all.bucket_count(i));
  EXPECT_EQ(left.sum_s(), all.sum_s());
  EXPECT_EQ(left.lowest_s(), all.lowest_s());
  EXPECT_EQ(left.highest_s(), all.highest_s());
  EXPECT_EQ(before.count() + right.count(), all.count());
  left.merge(left);
  EXPECT_EQ(left.count(), 2 * all.count());
  EXPECT_THROW(left.merge(Histogram(1e-7, 60.0)), infcore::InvalidArgument);
}

TEST(Histogram, RestoreTakesBackWhatWasReadAndRefusesTheRest) {
  Histogram h;
  for (const double value : {0.002, 0.004, 0.5}) h.record(value);
  std::vector<std::uint64_t> counts(h.n_buckets());
  for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = h.bucket_count(i);
  Histogram back;
  back.restore(counts, h.lowest_s(), h.highest_s());
  EXPECT_EQ(back.quantile(0.4), h.quantile(0.4));
  Histogram other;
  EXPECT_THROW(other.restore(counts, 0.003, 0.5), infcore::InvalidArgument);
  EXPECT_THROW(other.restore(counts, 0.002, 0.6), infcore::InvalidArgument);
  EXPECT_THROW(other.restore(counts, std::nan(""), 0.5), infcore::InvalidArgument);
  EXPECT_THROW(other.restore(std::span(counts).subspan(1), 0.002, 0.5), infcore::InvalidArgument);
  counts[0] = counts[1] = std::numeric_limits<std::uint64_t>::max();
  EXPECT_THROW(other.restore(counts, 1e-7, 0.5), infcore::InvalidArgument);
  EXPECT_EQ(other.count(), 0u);
}

TEST(Histogram, RefusesBadRanges) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const auto& [lo, hi] : std::vector<std::pair<double, double>>{{0.0, 1.0},
                                                                     {-1.0, 1.0},
                                                                     {1.0, 1.0},
                                                                     {2.0, 1.0},
                                                                     {1.0, inf},
                                                                     {std::nan(""), 1.0},
                                                                     {1.0, std::nan("")},
                                                                     {1e-12, 1e12}})
    EXPECT_THROW(Histogram(lo, hi), infcore::InvalidArgument) << lo << ' ' << hi;
  EXPECT_NO_THROW(Histogram(1.0, 0x1p62));
}

// Counts from several writers add up; a plain (single-writer) record in place of record_shared loses some here.
TEST(Histogram, SharedWritersLoseNothing) {
  constexpr std::uint64_t n_each = 200000;
  std::latch all_here(4);
  Histogram h;
  const std::vector<double> values = lognormal(2, 4);
  {
    std::vector<std::jthread> writers;
    for (int t = 0; t < 4; ++t)
      writers.emplace_back([&, t] {
        all_here.arrive_and_wait();
        for (std::uint64_t i = 0; i < n_each; ++i) h.record_shared(values[(i + static_cast<unsigned>(t)) % 2]);
      });
  }
  EXPECT_EQ(h.count(), 4 * n_each);
  EXPECT_EQ(h.lowest_s(), std::ranges::min(values));
  EXPECT_EQ(h.highest_s(), std::ranges::max(values));
}

TEST(Histogram, ReadersBesideTheWriterSeeWholeRecords) {
  Histogram h;
  std::atomic<bool> done{false};
  std::jthread writer([&] {
    for (int round = 0; round < 20; ++round)
      for (const double value : lognormal(5000, 5)) h.record(value);
    done.store(true, std::memory_order_release);
  });
  std::uint64_t seen = 0;
  while (!done.load(std::memory_order_acquire)) {
    const Histogram now(h);
    const std::uint64_t count = now.count();
    ASSERT_GE(count, seen);
    seen = count;
    if (count == 0) continue;
    const double p99 = h.quantile(0.99);
    ASSERT_GE(p99, h.lowest_s());
    ASSERT_LE(p99, h.highest_s());
    ASSERT_TRUE(std::isfinite(now.mean_s()));
  }
  writer.join();
  EXPECT_EQ(h.count(), 100000u);
}

}  // namespace
