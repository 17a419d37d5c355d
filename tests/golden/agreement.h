#ifndef NIBBLE_TESTS_GOLDEN_AGREEMENT_H_
#define NIBBLE_TESTS_GOLDEN_AGREEMENT_H_

// A model against a golden that has no gaps of its greedy steps (tests/data/architectures, tests/data/gguf).

#include "tests/golden/golden.h"

namespace nibble::test {

// The test fails where a logit of the golden differs by more than `tolerance`. The largest difference.
double expect_logits(Runner& runner, const Golden& golden, double tolerance);

// Step by step along the golden's continuation, with the key/value cache. Compared are the steps whose best
// logits are more than two tolerances apart; the test fails if that is not most of them.
void expect_greedy(Runner& runner, const Golden& golden, double tolerance);

}  // namespace nibble::test

#endif  // NIBBLE_TESTS_GOLDEN_AGREEMENT_H_
