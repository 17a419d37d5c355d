#include "tests/support/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "nibble/base/check.h"

namespace nibble::test {

double standard_deviation(std::span<const float> values) {
  const double n = static_cast<double>(values.size());
  double mean = 0.0;
  for (const float v : values) mean += double{v} / n;
  double sum = 0.0;
  for (const float v : values) sum += (v - mean) * (v - mean);
  return std::sqrt(sum / n);
}

double max_abs_difference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(double{a[i]} - double{b[i]});
    if (std::isnan(difference)) return difference;
    largest = std::max(largest, difference);
  }
  return largest;
}

int32_t argmax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double top_gap(std::span<const float> logits) {
  double first = -std::numeric_limits<double>::infinity();
  double second = first;
  for (const float v : logits) {
    if (v > first) {
      second = first;
      first = v;
    } else if (v > second) {
      second = v;
    }
  }
  return first - second;
}

double logsumexp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float v : logits) sum += std::exp(v - largest);
  return largest + std::log(sum);
}

double kl_divergence(std::span<const float> p, std::span<const float> q) {
  NIBBLE_CHECK(p.size() == q.size());
  const double p_total = logsumexp(p);
  const double q_total = logsumexp(q);
  double sum = 0.0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double log_p = p[i] - p_total;
    const double log_q = q[i] - q_total;
    sum += std::exp(log_p) * (log_p - log_q);
  }
  return sum;
}

}  // namespace nibble::test
