#include "tests/golden/agreement.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "tests/support/logits.h"

namespace nibble::test {

double expect_logits(Runner& runner, const Golden& golden, double tolerance) {
  double largest = 0.0;
  for (size_t s = 0; s < golden.sequences; ++s) {
    const auto logits = runner.logits(golden.prompts[s]);
    EXPECT_TRUE(logits.has_value()) << to_string(logits.error());
    if (!logits) return largest;
    for (size_t i = 0; i < golden.positions.size(); ++i) {
      const auto ours = row_of(*logits, golden.positions[i], golden.vocab_size);
      const double difference = max_abs_difference(ours, golden.row(s, i));
      EXPECT_LE(difference, tolerance) << "sequence " << s << ", position " << i;
      largest = std::max(largest, difference);
    }
  }
  return largest;
}

void expect_greedy(Runner& runner, const Golden& golden, double tolerance) {
  size_t compared = 0;
  size_t steps = 0;
  for (size_t s = 0; s < golden.sequences; ++s) {
    const std::vector<int32_t>& greedy = golden.greedy[s];
    std::vector<int32_t> sequence = golden.prompts[s];
    const auto cache = (*runner.model)->make_cache(sequence.size() + greedy.size());
    auto logits = runner.logits_after(sequence, *cache);
    for (const int32_t token : greedy) {
      ASSERT_TRUE(logits.has_value()) << to_string(logits.error());
      const auto last = row_of(*logits, logits->size() / golden.vocab_size - 1, golden.vocab_size);
      ++steps;
      // These goldens have no gap: ours is within two tolerances of theirs.
      if (top_gap(last) > 2 * tolerance) {
        ++compared;
        EXPECT_EQ(argmax(last), token) << "sequence " << s << ", step " << steps;
      }
      sequence.push_back(token);
      const size_t reset = (*runner.model)->cache_reset_length();
      if (reset > 0 && cache->size() <= reset && sequence.size() > reset) cache->truncate(0);
      logits = runner.logits_after(std::span<const int32_t>(sequence).subspan(cache->size()), *cache);
    }
  }
  EXPECT_GT(compared, steps * 3 / 4) << "too few steps are clear enough to compare";
}

}  // namespace nibble::test
