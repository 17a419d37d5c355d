#include "nibble/pipeline/compare_logits.h"

#include <algorithm>

namespace nibble {

double RunningSoftmax::raise(std::span<const float> logits, size_t first) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (best == logits.end() || !(*best > largest)) return 1.0;
  const double factor = std::exp(largest - *best);
  largest = *best;
  top = first + static_cast<size_t>(best - logits.begin());
  sum *= factor;
  return factor;
}

void LogitComparison::add(std::span<const float> p, std::span<const float> q, size_t first) {
  difference_ *= p_.raise(p, first);
  q_.raise(q, first);
  for (size_t i = 0; i < p.size(); ++i) {
    const double weight = std::exp(p[i] - p_.largest);
    p_.sum += weight;
    difference_ += weight * (double{p[i]} - q[i]);
    q_.sum += std::exp(q[i] - q_.largest);
  }
  if (next_ < first || next_ - first >= p.size()) return;
  next_p_ = p[next_ - first];
  next_q_ = q[next_ - first];
}

// The mean of log p - log q over p: that of the logits' difference, less that of their normalisers.
double LogitComparison::kl() const { return difference_ / p_.sum - p_.log_sum_exp() + q_.log_sum_exp(); }

}  // namespace nibble
