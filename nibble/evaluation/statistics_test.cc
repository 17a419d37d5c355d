#include "nibble/evaluation/statistics.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(StudentT, HasTheValuesOfTheTables) {
  EXPECT_NEAR(student_t_quantile(0.975, 1), 12.7062, 1e-4);
  EXPECT_NEAR(student_t_quantile(0.975, 10), 2.22814, 1e-5);
  EXPECT_NEAR(student_t_quantile(0.975, 63), 1.99834, 1e-5);
  EXPECT_NEAR(student_t_quantile(0.995, 5), 4.03214, 1e-5);
  EXPECT_NEAR(student_t_quantile(0.975, 1e7), 1.959964, 1e-5);
  EXPECT_NEAR(student_t_cdf(0, 7), 0.5, 1e-12);
  EXPECT_NEAR(student_t_cdf(-2.22814, 10), 0.025, 1e-6);
  EXPECT_NEAR(student_t_cdf(1.0, 1), 0.75, 1e-12);  // Cauchy
}

// What a text's divergences look like: log-normal with a long tail, neighbours alike.
std::vector<float> correlated_divergences(std::mt19937& rng, size_t count) {
  std::normal_distribution<double> normal;
  std::vector<float> values(count);
  double z = normal(rng);
  for (float& v : values) {
    z = 0.8 * z + 0.6 * normal(rng);
    v = static_cast<float>(std::exp(1.2 * z));
  }
  return values;
}

// The issue's promise, "95 % intervals cover the truth in 93-97 % of trials", at the lengths that people use.
TEST(MeanInterval, CoversTheTruthAsOftenAsItSays) {
  const double truth = std::exp(0.5 * 1.2 * 1.2);
  std::mt19937 rng(1);
  for (const size_t positions : {size_t{8192}, size_t{32768}}) {
    constexpr int kTrials = 1500;
    int covered = 0;
    for (int trial = 0; trial < kTrials; ++trial) {
      const Interval interval = mean_interval(correlated_divergences(rng, positions), 0.95);
      covered += interval.low <= truth && truth <= interval.high ? 1 : 0;
    }
    EXPECT_GE(covered, 0.93 * kTrials) << positions;
    EXPECT_LE(covered, 0.97 * kTrials) << positions;
  }
}

// Taking positions for independent would fail the same test: the check above can fail.
TEST(MeanInterval, PositionsAreNotIndependent) {
  const double truth = std::exp(0.5 * 1.2 * 1.2);
  std::mt19937 rng(1);
  int covered = 0;
  constexpr int kTrials = 300;
  for (int trial = 0; trial < kTrials; ++trial) {
    const std::vector<float> values = correlated_divergences(rng, 8192);
    double mean = 0;
    double squares = 0;
    for (const float v : values) mean += v / 8192.0;
    for (const float v : values) squares += (v - mean) * (v - mean);
    const double error = std::sqrt(squares / 8191.0 / 8192.0);
    covered += std::fabs(mean - truth) <= 1.96 * error ? 1 : 0;
  }
  EXPECT_LT(covered, 0.85 * kTrials);
}

TEST(PairedTest, FalseAlarmsAreAsRareAsTheyShould) {
  std::mt19937 rng(2);
  std::normal_distribution<double> normal;
  constexpr int kTrials = 1000;
  int alarms = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<float> a = correlated_divergences(rng, 4096);
    std::vector<float> b = a;
    double noise = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      noise = 0.7 * noise + normal(rng);
      b[i] += static_cast<float>(0.1 * noise);
    }
    alarms += paired_test(a, b, 0.95).p_value < 0.05 ? 1 : 0;
  }
  EXPECT_GE(alarms, 0.03 * kTrials);
  EXPECT_LE(alarms, 0.07 * kTrials);
}

TEST(PairedTest, SeesASmallDifferenceThatIntervalsDoNot) {
  std::mt19937 rng(3);
  const std::vector<float> a = correlated_divergences(rng, 8192);
  std::vector<float> b = a;
  for (float& v : b) v *= 1.02f;
  EXPECT_LT(mean_interval(b, 0.95).low, mean_interval(a, 0.95).high);
  const PairedTest test = paired_test(a, b, 0.95);
  EXPECT_LT(test.p_value, 1e-6);
  EXPECT_LT(test.difference.high, 0);
}

TEST(PairedTest, TheSameNumbersAreNotDifferent) {
  std::mt19937 rng(4);
  const std::vector<float> a = correlated_divergences(rng, 1000);
  const PairedTest test = paired_test(a, a, 0.95);
  EXPECT_EQ(test.difference.value, 0);
  EXPECT_EQ(test.difference.low, 0);
  EXPECT_EQ(test.p_value, 1);
}

TEST(MeanInterval, SaysNothingWhereThereIsTooLittle) {
  EXPECT_TRUE(std::isnan(mean_interval({}, 0.95).value));
  const std::vector<float> few(100, 2.f);
  EXPECT_EQ(mean_interval(few, 0.95).value, 2);
  EXPECT_TRUE(std::isnan(mean_interval(few, 0.95).low));
  EXPECT_EQ(to_json(mean_interval(few, 0.95)).dump(), R"({"value":2.0,"low":null,"high":null})");
}

TEST(ProportionInterval, IsWilsons) {
  const Interval interval = proportion_interval(8, 10, 0.95);
  EXPECT_DOUBLE_EQ(interval.value, 0.8);
  EXPECT_NEAR(interval.low, 0.4901625, 1e-6);
  EXPECT_NEAR(interval.high, 0.9433178, 1e-6);
  EXPECT_EQ(proportion_interval(0, 10, 0.95).low, 0);
}

TEST(Quantile, IsBetweenTheNearestValues) {
  const std::vector<float> values = {4, 1, 3, 2};
  EXPECT_DOUBLE_EQ(quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile(values, 0.9), 3.7);
  EXPECT_DOUBLE_EQ(quantile(values, 1), 4);
  EXPECT_TRUE(std::isnan(quantile({}, 0.5)));
}

TEST(QuantileInterval, CoversTheTruthAsOftenAsItSays) {
  std::mt19937 rng(5);
  constexpr int kTrials = 500;
  for (const double q : {0.5, 0.9}) {
    const double z = q == 0.5 ? 0.0 : 1.2815515655446004;
    const double truth = std::exp(1.2 * z);
    int covered = 0;
    for (int trial = 0; trial < kTrials; ++trial) {
      const Interval interval = quantile_interval(correlated_divergences(rng, 32768), q, 0.95);
      covered += interval.low <= truth && truth <= interval.high ? 1 : 0;
    }
    EXPECT_GE(covered, 0.925 * kTrials) << q;
    EXPECT_LE(covered, 0.975 * kTrials) << q;
  }
}

}  // namespace
}  // namespace nibble
