#include "nibble/generation/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

GenerationConfig sampling() {
  GenerationConfig config;
  config.do_sample = true;
  config.top_k = 0;
  config.seed = 1;
  return config;
}

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

// How often each token is the first one, over `draws` seeds.
std::vector<size_t> count_draws(GenerationConfig config, const std::vector<float>& logits, size_t draws) {
  std::vector<size_t> counts(logits.size());
  for (size_t seed = 0; seed < draws; ++seed) {
    config.seed = seed;
    Sampler sampler(config, {}, logits.size());
    std::vector<float> copy = logits;
    ++counts[static_cast<size_t>(sampler.sample(copy).value())];
  }
  return counts;
}

// Each count is binomial; it is off by more than five standard deviations once in 1.7 million runs.
void expect_frequencies(const std::vector<size_t>& counts, const std::vector<double>& probabilities) {
  const auto n = static_cast<double>(std::accumulate(counts.begin(), counts.end(), size_t{0}));
  for (size_t id = 0; id < counts.size(); ++id) {
    const double p = probabilities[id];
    EXPECT_NEAR(static_cast<double>(counts[id]), n * p, 5.0 * std::sqrt(n * p * (1.0 - p))) << "token " << id;
  }
}

TEST(Sampler, GreedyTakesTheFirstOfEqualLogits) {
  Sampler sampler({}, {}, 4);
  std::vector<float> logits = {1.f, 3.f, 3.f, 2.f};
  EXPECT_EQ(sampler.sample(logits).value(), 1);
}

TEST(Sampler, RepetitionPenaltyCountsPromptAndCompletion) {
  GenerationConfig config;
  config.repetition_penalty = 2.0;
  const std::vector<int32_t> prompt = {0, 1, 99, -5};  // ids outside the vocabulary do no harm
  Sampler sampler(config, prompt, 4);
  std::vector<float> logits = {1.f, -1.f, 0.875f, 0.75f};
  EXPECT_EQ(sampler.sample(logits).value(), 2);
  EXPECT_THAT(logits, ElementsAre(0.5f, -2.f, 0.875f, 0.75f));
  logits = {1.f, -1.f, 0.875f, 0.75f};
  EXPECT_EQ(sampler.sample(logits).value(), 3);
  EXPECT_THAT(logits, ElementsAre(0.5f, -2.f, 0.4375f, 0.75f));
}

TEST(Sampler, PresenceAndFrequencyPenaltiesCountTheCompletionOnly) {
  GenerationConfig config;
  config.presence_penalty = 0.5;
  config.frequency_penalty = 0.25;
  const std::vector<int32_t> prompt = {1};
  Sampler sampler(config, prompt, 2);
  std::vector<float> logits = {5.f, 1.f};
  ASSERT_EQ(sampler.sample(logits).value(), 0);
  EXPECT_THAT(logits, ElementsAre(5.f, 1.f));
  logits = {5.f, 1.f};
  ASSERT_EQ(sampler.sample(logits).value(), 0);
  EXPECT_THAT(logits, ElementsAre(4.25f, 1.f));  // 0.5 + 1 * 0.25
  logits = {5.f, 1.f};
  ASSERT_EQ(sampler.sample(logits).value(), 0);
  EXPECT_THAT(logits, ElementsAre(4.f, 1.f));  // 0.5 + 2 * 0.25
}

TEST(Sampler, LogitBiasComesAfterTheRepetitionPenalty) {
  GenerationConfig config;
  config.repetition_penalty = 2.0;
  config.logit_bias = {{0, 3.0}, {1, -100.0}, {77, 5.0}};
  const std::vector<int32_t> prompt = {0};
  Sampler sampler(config, prompt, 3);
  std::vector<float> logits = {4.f, 8.f, 1.f};
  EXPECT_EQ(sampler.sample(logits).value(), 0);
  EXPECT_THAT(logits, ElementsAre(5.f, -92.f, 1.f));
}

TEST(Sampler, EndTokensWaitForMinNewTokens) {
  GenerationConfig config;
  config.min_new_tokens = 2;
  config.eos_token_id = {0, 2};
  Sampler sampler(config, {}, 3);
  const std::vector<float> logits = {9.f, 1.f, 8.f};
  std::vector<int32_t> tokens;
  for (int i = 0; i < 3; ++i) {
    std::vector<float> copy = logits;
    tokens.push_back(sampler.sample(copy).value());
  }
  EXPECT_THAT(tokens, ElementsAre(1, 1, 0));
}

TEST(Sampler, DamagedLogitsAreAnError) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
    Sampler sampler({}, {}, 3);
    std::vector<float> logits = {1.f, bad, 2.f};
    const auto token = sampler.sample(logits);
    ASSERT_FALSE(token.has_value());
    EXPECT_EQ(token.error().code, ErrorCode::kDataLoss);
    EXPECT_THAT(token.error().what, HasSubstr("token 1"));
  }
}

TEST(Sampler, NothingLeftToChooseIsAnError) {
  for (const bool do_sample : {false, true}) {
    GenerationConfig config = sampling();
    config.do_sample = do_sample;
    Sampler sampler(config, {}, 2);
    std::vector<float> logits = {-kInfinity, -kInfinity};
    EXPECT_FALSE(sampler.sample(logits).has_value());
  }
}

TEST(Sampler, DrawsFollowTheProbabilities) {
  const std::vector<double> p = {0.5, 0.25, 0.125, 0.125};
  expect_frequencies(count_draws(sampling(), logs(p), 4000), p);
}

TEST(Sampler, TemperatureSharpensTheProbabilities) {
  GenerationConfig config = sampling();
  config.temperature = 0.5;  // squares them: 16 + 4 + 1 + 1 parts
  expect_frequencies(count_draws(config, logs({0.5, 0.25, 0.125, 0.125}), 4000),
                     {16.0 / 22, 4.0 / 22, 1.0 / 22, 1.0 / 22});
}

TEST(Sampler, TinyTemperatureTakesTheLikeliest) {
  GenerationConfig config = sampling();
  config.temperature = 1e-300;
  expect_frequencies(count_draws(config, {1.f, 1.0001f, -3.f}, 50), {0.0, 1.0, 0.0});
}

TEST(Sampler, TopKKeepsTheLargest) {
  GenerationConfig config = sampling();
  config.top_k = 2;
  expect_frequencies(count_draws(config, logs({0.125, 0.5, 0.125, 0.25}), 4000),
                     {0.0, 2.0 / 3, 0.0, 1.0 / 3});
}

TEST(Sampler, TopKKeepsAllThatEqualTheLastOne) {
  GenerationConfig config = sampling();
  config.top_k = 2;
  expect_frequencies(count_draws(config, logs({0.25, 0.5, 0.25}), 4000), {0.25, 0.5, 0.25});
}

TEST(Sampler, TopPKeepsTheTokenThatReachesIt) {
  GenerationConfig config = sampling();
  config.top_p = 0.7;  // 0.5 does not reach it, 0.5 + 0.25 does
  expect_frequencies(count_draws(config, logs({0.125, 0.25, 0.5, 0.125}), 4000),
                     {0.0, 1.0 / 3, 2.0 / 3, 0.0});
}

TEST(Sampler, TopPOfZeroKeepsOneToken) {
  GenerationConfig config = sampling();
  config.top_p = 0.0;
  expect_frequencies(count_draws(config, logs({0.25, 0.25, 0.5}), 50), {0.0, 0.0, 1.0});
}

TEST(Sampler, TopPCountsAmongWhatTopKLeft) {
  GenerationConfig config = sampling();
  config.top_k = 2;
  config.top_p = 0.6;  // 0.4 of 0.7 is 0.57: the second one is needed, though 0.4 + 0.3 of 1 would be too
  expect_frequencies(count_draws(config, logs({0.4, 0.3, 0.2, 0.1}), 4000), {4.0 / 7, 3.0 / 7, 0.0, 0.0});
  config.top_p = 0.55;
  expect_frequencies(count_draws(config, logs({0.4, 0.3, 0.2, 0.1}), 50), {1.0, 0.0, 0.0, 0.0});
}

TEST(Sampler, MinPIsAShareOfTheLikeliest) {
  GenerationConfig config = sampling();
  config.min_p = 0.45;
  expect_frequencies(count_draws(config, logs({0.5, 0.25, 0.2, 0.05}), 4000), {2.0 / 3, 1.0 / 3, 0.0, 0.0});
}

TEST(Sampler, SameSeedGivesTheSameTokens) {
  const auto run = [](uint64_t seed) {
    GenerationConfig config = sampling();
    config.seed = seed;
    Sampler sampler(config, {}, 50);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 40; ++i) {
      std::vector<float> logits(50, 0.f);
      tokens.push_back(sampler.sample(logits).value());
    }
    return tokens;
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

TEST(Sampler, WithoutASeedRunsDiffer) {
  std::set<std::vector<int32_t>> runs;
  for (int run = 0; run < 2; ++run) {
    GenerationConfig config = sampling();
    config.seed.reset();
    Sampler sampler(config, {}, 1000);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 10; ++i) {
      std::vector<float> logits(1000, 0.f);
      tokens.push_back(sampler.sample(logits).value());
    }
    runs.insert(tokens);
  }
  EXPECT_EQ(runs.size(), 2u);
}

// The plain way: sort everything, walk down.
int32_t sample_by_sorting(const GenerationConfig& config, const std::vector<float>& logits) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  const double largest = logits[order[0]];
  const auto weight = [&](size_t id) { return std::exp((logits[id] - largest) / config.temperature); };
  if (config.top_k != 0 && config.top_k < order.size()) {
    const float last = logits[order[config.top_k - 1]];
    std::erase_if(order, [&](size_t id) { return logits[id] < last; });
  }
  double total = 0.0;
  for (const size_t id : order) total += weight(id);
  double sum = 0.0;
  size_t kept = 0;
  while (kept < order.size() && (kept == 0 || sum < config.top_p * total)) sum += weight(order[kept++]);
  order.resize(kept);
  std::erase_if(order, [&](size_t id) { return weight(id) < config.min_p; });
  std::sort(order.begin(), order.end());
  total = 0.0;
  for (const size_t id : order) total += weight(id);
  std::mt19937_64 random(*config.seed);
  double rest = static_cast<double>(random() >> 11) * 0x1p-53 * total;
  for (const size_t id : order) {
    if (rest < weight(id)) return static_cast<int32_t>(id);
    rest -= weight(id);
  }
  return static_cast<int32_t>(order.back());
}

RC_GTEST_PROP(SamplerProperty, ChoosesWhatSortingWouldChoose, ()) {
  // Whole numbers give many equal logits, the awkward case. top_p is far from any sum of weights.
  const auto integers = *rc::gen::nonEmpty(rc::gen::container<std::vector<int>>(rc::gen::inRange(-6, 7)));
  const std::vector<float> logits(integers.begin(), integers.end());
  GenerationConfig config = sampling();
  config.seed = *rc::gen::arbitrary<uint64_t>();
  config.top_k = *rc::gen::inRange<size_t>(0, 12);
  config.top_p = *rc::gen::element(0.1234567, 0.5432109, 0.7891234, 0.9515151, 1.0);
  config.min_p = *rc::gen::element(0.0, 0.01, 0.3);
  config.temperature = *rc::gen::element(0.3, 1.0, 2.5);
  const int32_t expected = sample_by_sorting(config, logits);
  Sampler sampler(config, {}, logits.size());
  std::vector<float> copy = logits;
  RC_ASSERT(sampler.sample(copy).value() == expected);
}

}  // namespace
}  // namespace nibble
