#ifndef NIBBLE_TESTS_SUPPORT_LOGITS_H_
#define NIBBLE_TESTS_SUPPORT_LOGITS_H_

// Arithmetic on rows of logits.

#include <cstddef>
#include <cstdint>
#include <span>

namespace nibble::test {

double standard_deviation(std::span<const float> values);

// NaN where either is NaN, infinity where the sizes differ: no comparison with a bound passes.
double max_abs_difference(std::span<const float> a, std::span<const float> b);

int32_t argmax(std::span<const float> logits);  // the first one, as torch.argmax

// The largest logit less the second largest.
double top_gap(std::span<const float> logits);

double logsumexp(std::span<const float> logits);

// KL(p || q) in nats of the distributions that two rows of logits stand for.
double kl_divergence(std::span<const float> p, std::span<const float> q);

}  // namespace nibble::test

#endif  // NIBBLE_TESTS_SUPPORT_LOGITS_H_
