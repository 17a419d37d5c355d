#include "nibble/evaluation/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nibble {
namespace {

constexpr size_t kMostBlocks = 64;
constexpr size_t kLeastPerBlock = 64;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// The continued fraction of the incomplete beta function, evaluated by Lentz's method (DLMF 8.17.22).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  constexpr double kEnough = 1e-15;
  constexpr int kMostTerms = 10000;
  const auto not_zero = [](double v) { return std::fabs(v) < kTiny ? kTiny : v; };
  double c = 1.0;
  double d = 1.0 / not_zero(1.0 - (a + b) * x / (a + 1.0));
  double fraction = d;
  for (int m = 1; m < kMostTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1.0 / not_zero(1.0 + even * d);
    c = not_zero(1.0 + even / c);
    fraction *= c * d;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1.0 / not_zero(1.0 + odd * d);
    c = not_zero(1.0 + odd / c);
    fraction *= c * d;
    if (std::fabs(c * d - 1.0) < kEnough) break;
  }
  return fraction;
}

// I_x(a, b), the regularized incomplete beta function.
double incomplete_beta(double a, double b, double x) {
  if (x <= 0.0) return 0.0;
  if (x >= 1.0) return 1.0;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  // The fraction converges quickly on one side of the mean.
  if (x < (a + 1.0) / (a + b + 2.0)) return front * beta_fraction(a, b, x) / a;
  return 1.0 - front * beta_fraction(b, a, 1.0 - x) / b;
}

size_t block_begin(size_t block, size_t blocks, size_t values) { return block * values / blocks; }

std::vector<double> block_means(std::span<const float> values, size_t blocks) {
  std::vector<double> means(blocks);
  for (size_t block = 0; block < blocks; ++block) {
    const size_t begin = block_begin(block, blocks, values.size());
    const size_t end = block_begin(block + 1, blocks, values.size());
    double sum = 0.0;
    for (size_t i = begin; i < end; ++i) sum += values[i];
    means[block] = sum / static_cast<double>(end - begin);
  }
  return means;
}

// Standard error of the mean of the blocks.
double standard_error(std::span<const double> means) {
  const auto n = static_cast<double>(means.size());
  double mean = 0.0;
  for (const double m : means) mean += m;
  mean /= n;
  double squares = 0.0;
  for (const double m : means) squares += (m - mean) * (m - mean);
  return std::sqrt(squares / (n - 1.0) / n);
}

double mean_of(std::span<const float> values) {
  double sum = 0.0;
  for (const float v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

}  // namespace

Json to_json(const Interval& interval) {
  return {{"value", finite_or_null(interval.value)},
          {"low", finite_or_null(interval.low)},
          {"high", finite_or_null(interval.high)}};
}

size_t num_blocks(size_t values) { return std::clamp<size_t>(values / kLeastPerBlock, 1, kMostBlocks); }

double student_t_cdf(double t, double df) {
  const double tail = 0.5 * incomplete_beta(0.5 * df, 0.5, df / (df + t * t));
  return t > 0.0 ? 1.0 - tail : tail;
}

double student_t_quantile(double p, double df) {
  double low = -1e6;
  double high = 1e6;
  for (int i = 0; i < 200; ++i) {
    const double middle = 0.5 * (low + high);
    (student_t_cdf(middle, df) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

Interval mean_interval(std::span<const float> values, double confidence) {
  if (values.empty()) return {kNaN, kNaN, kNaN};
  const double mean = mean_of(values);
  const size_t blocks = num_blocks(values.size());
  if (blocks < 2) return {mean, kNaN, kNaN};
  const double error = standard_error(block_means(values, blocks));
  const double t = student_t_quantile(0.5 + 0.5 * confidence, static_cast<double>(blocks - 1));
  return {mean, mean - t * error, mean + t * error};
}

PairedTest paired_test(std::span<const float> a, std::span<const float> b, double confidence) {
  std::vector<float> differences(a.size());
  for (size_t i = 0; i < a.size(); ++i) differences[i] = a[i] - b[i];
  PairedTest test;
  test.difference = mean_interval(differences, confidence);
  if (std::all_of(differences.begin(), differences.end(), [](float d) { return d == 0.f; })) return test;
  const size_t blocks = num_blocks(differences.size());
  if (blocks < 2) {
    test.p_value = kNaN;
    return test;
  }
  const double error = standard_error(block_means(differences, blocks));
  const double t = std::fabs(test.difference.value) / error;
  test.p_value = 2.0 * student_t_cdf(-t, static_cast<double>(blocks - 1));
  return test;
}

Interval proportion_interval(size_t successes, size_t trials, double confidence) {
  if (trials == 0) return {kNaN, kNaN, kNaN};
  const auto n = static_cast<double>(trials);
  const double p = static_cast<double>(successes) / n;
  constexpr double kNormal = 1e7;  // degrees of freedom at which t is the normal distribution
  const double z = student_t_quantile(0.5 + 0.5 * confidence, kNormal);
  const double middle = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {p, std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

namespace {

double quantile_of_sorted(std::span<const float> sorted, double q) {
  const double place = std::clamp(q, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = place - static_cast<double>(below);
  return sorted[below] + share * (static_cast<double>(sorted[above]) - sorted[below]);
}

}  // namespace

double quantile(std::span<const float> values, double q) {
  if (values.empty()) return kNaN;
  std::vector<float> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return quantile_of_sorted(sorted, q);
}

Interval quantile_interval(std::span<const float> values, double q, double confidence) {
  if (values.empty()) return {kNaN, kNaN, kNaN};
  std::vector<float> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const double at = quantile_of_sorted(sorted, q);
  std::vector<float> below(values.size());
  for (size_t i = 0; i < values.size(); ++i) below[i] = values[i] <= at ? 1.f : 0.f;
  const Interval share = mean_interval(below, confidence);
  if (std::isnan(share.low)) return {at, kNaN, kNaN};
  return {at, quantile_of_sorted(sorted, q - (share.value - share.low)),
          quantile_of_sorted(sorted, q + (share.high - share.value))};
}

}  // namespace nibble
