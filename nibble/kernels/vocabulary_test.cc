#include "nibble/kernels/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace nibble::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kCounts[] = {1, 2, 15, 16, 17, 63, 64, 130, 1024, 4096, 4097, 12345};

std::vector<float> some_logits(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(-3.f, 4.f);
  std::vector<float> logits(count);
  for (float& v : logits) v = std::round(normal(rng) * 8) / 8;  // many equal ones
  return logits;
}

class VocabularyTest : public testing::TestWithParam<CpuTarget> {};
INSTANTIATE_TEST_SUITE_P(EveryTarget, VocabularyTest, testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& test) { return std::string(cpu_target_name(test.param)); });

TEST_P(VocabularyTest, FindsTheFirstOfTheLargest) {
  for (const size_t count : kCounts) {
    for (unsigned seed = 0; seed < 20; ++seed) {
      auto logits = some_logits(count, seed);
      if (seed % 2 == 1) logits[seed % count] = -kInfinity;
      const auto expected = std::max_element(logits.begin(), logits.end()) - logits.begin();
      const Largest found = find_largest(logits.data(), count, GetParam());
      EXPECT_EQ(found.index, static_cast<size_t>(expected)) << count;
      EXPECT_FALSE(found.damaged);
    }
    const std::vector<float> none(count, -kInfinity);
    EXPECT_EQ(find_largest(none.data(), count, GetParam()).index, 0u);
    EXPECT_FALSE(find_largest(none.data(), count, GetParam()).damaged);
  }
}

TEST_P(VocabularyTest, FindsDamageWhereverItIs) {
  for (const size_t count : kCounts) {
    for (const float bad : {kInfinity, std::numeric_limits<float>::quiet_NaN(), -std::nanf("")}) {
      for (size_t at = 0; at < count; at += 1 + count / 50) {
        auto logits = some_logits(count, 1);
        logits[at] = bad;
        EXPECT_TRUE(find_largest(logits.data(), count, GetParam()).damaged) << at << " of " << count;
      }
    }
  }
}

TEST_P(VocabularyTest, FindsTheFirstThatReachesTheThreshold) {
  for (const size_t count : kCounts) {
    const auto logits = some_logits(count, 2);
    for (const float threshold : {-100.f, -3.f, 5.f, 9.f, 100.f}) {
      for (size_t begin = 0; begin <= count; begin += 1 + count / 7) {
        const auto first = std::find_if(logits.begin() + static_cast<std::ptrdiff_t>(begin), logits.end(),
                                        [&](float v) { return v >= threshold; });
        EXPECT_EQ(find_at_least(logits.data(), begin, count, threshold, GetParam()),
                  static_cast<size_t>(first - logits.begin()));
      }
    }
  }
}

TEST_P(VocabularyTest, WeightsAreExponentials) {
  for (const size_t count : kCounts) {
    auto logits = some_logits(count, 3);
    const float largest = *std::max_element(logits.begin(), logits.end());
    if (count > 2) logits[count / 2] = -kInfinity;
    for (const float factor : {1e-30f, 0.4f, 1.f, 3.f, 1e30f}) {
      std::vector<float> weights(count);
      const double sum =
          exponential_weights(logits.data(), count, largest, factor, weights.data(), GetParam());
      double expected_sum = 0;
      for (size_t i = 0; i < count; ++i) {
        const double expected =
            std::isinf(logits[i]) ? 0.0 : std::exp((double{logits[i]} - double{largest}) * double{factor});
        // The argument is rounded to float, once or twice.
        EXPECT_NEAR(weights[i], expected, expected * 2e-5 + 1e-37);
        expected_sum += weights[i];
      }
      if (count > 2) {
        EXPECT_EQ(weights[count / 2], 0.f);
      }
      EXPECT_NEAR(sum, expected_sum, expected_sum * 1e-5);
      double of_blocks = 0;
      for (size_t begin = 0; begin < count; begin += kWeightBlock) {
        of_blocks += weight_sum(weights.data() + begin, std::min(kWeightBlock, count - begin), GetParam());
      }
      EXPECT_EQ(sum, of_blocks);
    }
  }
}

}  // namespace
}  // namespace nibble::kernels
