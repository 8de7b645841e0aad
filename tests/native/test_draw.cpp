// exp and log without libm, the laws that numbers are drawn from, and that streams of one seed have nothing in common.
#include <infcore/base/draw.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace infcore::base {
namespace {

constexpr int n_draws = 1'000'000;

/// How many doubles lie between two of the same sign.
double ulps_between(double a, double b) {
  return std::abs(static_cast<double>(std::bit_cast<std::int64_t>(a) - std::bit_cast<std::int64_t>(b)));
}

struct Moments {
  double mean, variance, skewness, kurtosis;
};

Moments moments(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double mean = 0.0, m2 = 0.0, m3 = 0.0, m4 = 0.0;
  for (const double value : values) mean += value / n;
  for (const double value : values) {
    const double d = value - mean;
    m2 += d * d / n;
    m3 += d * d * d / n;
    m4 += d * d * d * d / n;
  }
  return {mean, m2, m3 / std::pow(m2, 1.5), m4 / (m2 * m2)};
}

template <class Function>
std::vector<double> drawn(std::uint64_t seed, Function&& function) {
  Draw draw(seed);
  std::vector<double> values(n_draws);
  for (double& value : values) value = function(draw);
  return values;
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const Moments of_a = moments(a), of_b = moments(b);
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - of_a.mean) * (b[i] - of_b.mean);
  return sum / static_cast<double>(a.size()) / std::sqrt(of_a.variance * of_b.variance);
}

TEST(Exp, IsWithinFourUnitsOfTheLibrarys) {
  double worst = 0.0;
  for (double x = -700.0; x <= 700.0; x += 0.01237) worst = std::max(worst, ulps_between(exp(x), std::exp(x)));
  for (double x = 1e-18; x < 1.0; x *= 1.01) {
    worst = std::max({worst, ulps_between(exp(x), std::exp(x)), ulps_between(exp(-x), std::exp(-x))});
  }
  EXPECT_LE(worst, 4.0);
  EXPECT_EQ(exp(0.0), 1.0);
  EXPECT_GT(exp(-700.0), 0.0);
  EXPECT_TRUE(std::isfinite(exp(700.0)));
}

TEST(Log, IsWithinTwoUnitsOfTheLibrarys) {
  double worst = 0.0;
  for (double x = std::numeric_limits<double>::min(); x < 1e308; x *= 1.00317) {
    worst = std::max(worst, ulps_between(log(x), std::log(x)));
  }
  // About 1 the value goes to 0: there a sum that cancels would show.
  for (double d = 1e-16; d < 0.5; d *= 1.01) {
    worst = std::max(worst, ulps_between(log(1.0 + d), std::log(1.0 + d)));
    if (1.0 - d < 1.0) worst = std::max(worst, ulps_between(log(1.0 - d), std::log(1.0 - d)));
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_EQ(log(1.0), 0.0);
  EXPECT_EQ(log(0.5), -log(2.0));
}

TEST(Draw, UniformIsEvenAndBelowOne) {
  const std::vector<double> values = drawn(1, [](Draw& draw) { return draw.uniform(); });
  std::vector<int> cells(100);
  for (const double value : values) {
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    ++cells[static_cast<std::size_t>(value * 100.0)];
  }
  double chi2 = 0.0;
  for (const int n : cells) chi2 += (n - n_draws / 100.0) * (n - n_draws / 100.0) / (n_draws / 100.0);
  EXPECT_LT(chi2, 149.4);  // 99 degrees of freedom: beyond it once in 1,000
  EXPECT_GT(chi2, 59.9);   // nor too even
}

TEST(Draw, ExponentialHasItsMoments) {
  const std::vector<double> values = drawn(2, [](Draw& draw) { return draw.exponential(); });
  const Moments m = moments(values);
  EXPECT_GE(*std::min_element(values.begin(), values.end()), 0.0);
  EXPECT_NEAR(m.mean, 1.0, 4e-3);  // four standard errors and more, here and below
  EXPECT_NEAR(m.variance, 1.0, 0.012);
  EXPECT_NEAR(m.skewness, 2.0, 0.06);
  const auto above_3 = std::count_if(values.begin(), values.end(), [](double value) { return value > 3.0; });
  EXPECT_NEAR(static_cast<double>(above_3) / n_draws, std::exp(-3.0), 9e-4);
}

TEST(Draw, NormalHasItsMoments) {
  const Moments m = moments(drawn(3, [](Draw& draw) { return draw.normal(); }));
  EXPECT_NEAR(m.mean, 0.0, 4e-3);
  EXPECT_NEAR(m.variance, 1.0, 6e-3);
  EXPECT_NEAR(m.skewness, 0.0, 0.01);
  EXPECT_NEAR(m.kurtosis, 3.0, 0.02);
}

// The inverse distribution function at the uniform that the same stream gives, against Python's
// statistics.NormalDist().inv_cdf and, from there back, erfc: the share below what was drawn is that uniform.
TEST(Draw, NormalIsTheInverseOfItsUniform) {
  Draw draw(4), same(4);
  for (int i = 0; i < n_draws / 10; ++i) {
    const double p = draw.uniform() + 0x1p-54, x = same.normal();
    const double below = 0.5 * std::erfc(-x / std::sqrt(2.0));
    ASSERT_NEAR(below / p, 1.0, 1e-13 * (1.0 + x * x)) << x;
  }
}

/// A stream whose next uniform is within 2^-53 of p: SplitMix64 undone.
Draw about_to_give(double p) {
  std::uint64_t z = static_cast<std::uint64_t>(p * 0x1p53) << 11;
  const auto unshift = [](std::uint64_t value, int by) {
    std::uint64_t whole = value;
    for (int i = 0; i < 64 / by + 1; ++i) whole = value ^ (whole >> by);
    return whole;
  };
  const auto inverse = [](std::uint64_t odd) {
    std::uint64_t x = odd;
    for (int i = 0; i < 6; ++i) x *= 2 - odd * x;
    return x;
  };
  z = unshift(z, 31) * inverse(0x94D0'49BB'1331'11EBu);
  z = unshift(z, 27) * inverse(0xBF58'476D'1CE4'E5B9u);
  z = unshift(z, 30);
  return Draw(z - 0x9E37'79B9'7F4A'7C15u);
}

TEST(Draw, NormalIsThatOfPythonsNormalDist) {
  // python3 -c "from statistics import NormalDist; print(NormalDist().inv_cdf(min(p + 2**-54, 1 - 2**-53)))",
  // p a multiple of 2^-53.
  const struct {
    double p, x;
  } known[] = {
      {0x1.0000000000000p-1, 0.0},
      {0x1.0000000000000p-2, -0.6744897501960816},
      {0x1.3333333333330p-4, -1.4395314709384557},
      {0x1.2f1a9fbe76c88p-4, -1.446632067158978},
      {0x1.d99999999999ap-1, 1.439531470938456},
      {0x1.ccccccccccccdp-1, 1.2815515655446013},
      {0x1.ff7ced916872bp-1, 3.0902323061678465},
      {0x1.0c6f7a0b00000p-20, -4.753424308828307},
      {0x1.1978000000000p-40, -7.034479169463664},
      {0x1.2000000000000p-50, -7.934736688313162},
      {0x1.fffffffffe000p-1, 7.047700256664409},
      {0x1.3333333333333p-1, 0.25334710313580006},
      {0x1.0000000000000p-53, -8.160707840858583},
      {0x0.0p+0, -8.292361075813595},
      {0x1.fffffffffffffp-1, 8.209536151601386},  // p + 2^-54 would be 1
  };
  for (const auto& [p, x] : known) {
    Draw copy = about_to_give(p);
    ASSERT_EQ(copy.uniform(), p);
    EXPECT_NEAR(about_to_give(p).normal(), x, 1e-15 + 4e-15 * std::abs(x)) << p;
  }
}

TEST(Draw, GammaHasItsMoments) {
  for (const double cv : {0.1, 0.5, 1.0, 2.0, 3.0}) {
    const std::vector<double> values = drawn(5, [&](Draw& draw) { return draw.gamma(cv); });
    const Moments m = moments(values);
    EXPECT_GE(*std::min_element(values.begin(), values.end()), 0.0) << cv;
    // Standard errors: cv / sqrt(n) of the mean; of the variance sqrt((kurtosis - 1) / n) of itself, kurtosis 3 + 6
    // cv^2.
    EXPECT_NEAR(m.mean, 1.0, 4.5 * cv / std::sqrt(n_draws)) << cv;
    EXPECT_NEAR(m.variance / (cv * cv), 1.0, 4.5 * std::sqrt((2.0 + 6.0 * cv * cv) / n_draws)) << cv;
    EXPECT_NEAR(m.skewness / (2.0 * cv), 1.0, 0.08) << cv;
  }
}

TEST(Draw, GammaOfCvOneIsExponential) {
  std::vector<double> values = drawn(6, [](Draw& draw) { return draw.gamma(1.0); });
  std::sort(values.begin(), values.end());
  double farthest = 0.0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    farthest = std::max(farthest, std::abs((static_cast<double>(i) + 0.5) / n_draws - (1.0 - std::exp(-values[i]))));
  }
  EXPECT_LT(farthest, 1.95 / std::sqrt(n_draws));  // Kolmogorov and Smirnov: beyond it once in 1,000
}

TEST(LognormalFactor, HasItsMoments) {
  for (const double cv : {0.05, 0.3, 1.0}) {
    const LognormalFactor factor(cv);
    const Moments m = moments(drawn(7, [&](Draw& draw) { return factor.draw(draw); }));
    EXPECT_NEAR(m.mean, 1.0, 4.5 * cv / std::sqrt(n_draws)) << cv;
    EXPECT_NEAR(std::sqrt(m.variance) / cv, 1.0, cv < 0.5 ? 0.01 : 0.03) << cv;
  }
  Draw untouched(8);
  EXPECT_EQ(LognormalFactor(0.0).draw(untouched), 1.0);
  EXPECT_EQ(untouched.bits(), Draw(8).bits());  // no spread, no draw
}

TEST(Draw, StreamsOfOneSeedHaveNothingInCommon) {
  constexpr std::size_t n = 20'000;
  std::vector<std::vector<double>> streams;
  // Neighbours, as consumers are numbered, and the same consumers under the next seed.
  for (const std::uint64_t seed : {0u, 1u}) {
    for (std::uint64_t consumer = 0; consumer < 6; ++consumer) {
      Draw draw(seed, consumer);
      std::vector<double>& stream = streams.emplace_back();
      for (std::size_t i = 0; i < n; ++i) stream.push_back(draw.uniform());
    }
  }
  for (std::size_t a = 0; a < streams.size(); ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      EXPECT_LT(std::abs(correlation(streams[a], streams[b])), 4.5 / std::sqrt(n)) << a << ' ' << b;
    }
    const std::vector<double> next(streams[a].begin() + 1, streams[a].end());
    const std::vector<double> all_but_last(streams[a].begin(), streams[a].end() - 1);
    EXPECT_LT(std::abs(correlation(next, all_but_last)), 4.5 / std::sqrt(n)) << a;
  }
  std::vector<double> all;
  for (const auto& stream : streams) all.insert(all.end(), stream.begin(), stream.end());
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::adjacent_find(all.begin(), all.end()),
            all.end());  // of 2^53: the same number by chance, once in 300,000
}

TEST(Draw, SameSeedSameNumbers) {
  Draw a(42, 7), b(42, 7);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(a.bits(), b.bits());
}

}  // namespace
}  // namespace infcore::base
