// The ways to compute the same thing, against each other.

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "nibble/nn/kv_cache.h"
#include "tests/golden/golden.h"
#include "tests/support/fixtures.h"
#include "tests/support/logits.h"

namespace nibble::test {
namespace {

// KL(f32 || auto) in nats, over the 96 positions of the golden's prompts. Seen with activations in
// int8: mean at most 9e-5, largest 7e-4, for every format; NF4 itself
// costs 6e-3. The bounds are about three times that: twice the rounding error means four times the KL.
constexpr double kMaxMeanKl = 3e-4;
constexpr double kMaxKl = 2e-3;
// Where the best logit leads by more than this, it must stay the best (deviation of all logits: 2.8).
constexpr double kClearLead = 0.25;

class ComputeModes : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Every, ComputeModes, testing::ValuesIn(model_names()),
                         [](const auto& test) { return test_name(test.param); });

TEST_P(ComputeModes, AutoStaysCloseToFloat32) {
  const auto folder = model_folder(GetParam());
  ASSERT_TRUE(folder.has_value()) << to_string(folder.error());
  const auto golden = load_golden(data_folder() / "goldens" / (GetParam() + ".safetensors"));
  ASSERT_TRUE(golden.has_value()) << to_string(golden.error());
  Runner exact(*folder, in_float32());
  Runner fast(*folder, in_auto());
  ASSERT_TRUE(exact.model.has_value()) << to_string(exact.model.error());
  ASSERT_TRUE(fast.model.has_value()) << to_string(fast.model.error());
  EXPECT_EQ((*exact.model)->compute(), ComputeMode::kF32);
  EXPECT_EQ((*fast.model)->compute(), ComputeMode::kAuto);

  double sum = 0.0;
  double largest = 0.0;
  size_t same_best = 0;
  size_t rows = 0;
  for (const std::vector<int32_t>& prompt : golden->prompts) {
    const auto a = exact.logits(prompt);
    const auto b = fast.logits(prompt);
    ASSERT_TRUE(a.has_value() && b.has_value());
    for (size_t t = 0; t < prompt.size(); ++t, ++rows) {
      const auto p = row_of(*a, t, golden->vocab_size);
      const auto q = row_of(*b, t, golden->vocab_size);
      const double kl = kl_divergence(p, q);
      sum += kl;
      largest = std::max(largest, kl);
      const bool same = argmax(p) == argmax(q);
      same_best += same ? 1 : 0;
      EXPECT_TRUE(same || top_gap(p) <= kClearLead) << "position " << t << ", lead " << top_gap(p);
    }
  }
  const double mean = sum / static_cast<double>(rows);
  EXPECT_LE(mean, kMaxMeanKl);
  EXPECT_LE(largest, kMaxKl);
  EXPECT_GE(same_best * 10, rows * 9) << "top-1 agreement below 90 %";
  RecordProperty("mean_kl", fmt::format("{:.2e}", mean));
  report(fmt::format("{}: auto against f32: mean KL {:.1e}, largest {:.1e}, top-1 {}/{} ({})", GetParam(),
                     mean, largest, same_best, rows, (*fast.model)->kernels()));
}

// eager is the plain loop over all keys, sdpa the tiled one-pass form; they sum in another order.
// Transformers' own two differ by 2.7e-6 of the logits' standard deviation on tiny-llama.
constexpr double kAttentionTolerance = 5e-5;

// Both kinds of model folder: name, and which part of tests/data it is in.
std::vector<std::pair<std::string, std::string>> attention_cases() {
  std::vector<std::pair<std::string, std::string>> cases = {{"models", "tiny-llama"},
                                                            {"models", "gptq-4b-g128"}};
  for (const std::string& name : architecture_names()) cases.emplace_back("architectures", name);
  return cases;
}

class AttentionImplementations : public testing::TestWithParam<std::pair<std::string, std::string>> {};
INSTANTIATE_TEST_SUITE_P(Every, AttentionImplementations, testing::ValuesIn(attention_cases()),
                         [](const auto& test) { return test_name(test.param.second); });

TEST_P(AttentionImplementations, EagerAndTiledAgree) {
  const auto& [kind, name] = GetParam();
  const bool is_model = kind == "models";
  const std::filesystem::path folder =
      is_model ? model_folder(name).value() : data_folder() / "architectures" / name;
  const auto golden = load_golden(is_model ? data_folder() / "goldens" / (name + ".safetensors")
                                           : folder / "goldens.safetensors");
  ASSERT_TRUE(golden.has_value()) << to_string(golden.error());

  std::vector<std::vector<float>> results;
  for (const char* implementation : {"eager", "sdpa", "flash_attention_2"}) {
    FromPretrainedOptions options = in_float32();
    options.attn_implementation = implementation;
    Runner runner(folder, options);
    ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
    auto logits = runner.logits(golden->prompts[0]);
    ASSERT_TRUE(logits.has_value()) << to_string(logits.error());
    results.push_back(*std::move(logits));
  }
  EXPECT_LE(max_abs_difference(results[0], results[1]), kAttentionTolerance * golden->logits_std);
  EXPECT_EQ(results[1], results[2]);
}

TEST(AttentionImplementation, UnknownNameIsRefused) {
  FromPretrainedOptions options;
  options.attn_implementation = "flex_attention_9";
  Runner runner(model_folder("tiny-llama").value(), options);
  ASSERT_FALSE(runner.model.has_value());
  EXPECT_NE(to_string(runner.model.error()).find("flex_attention_9"), std::string::npos);
}

class Backends : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Every, Backends, testing::ValuesIn(model_names()),
                         [](const auto& test) { return test_name(test.param); });

// The plain loops are the oracle of every kernel; in float32 they differ by the order of sums only.
TEST_P(Backends, ReferenceAndAutoAgree) {
  const auto folder = model_folder(GetParam());
  ASSERT_TRUE(folder.has_value()) << to_string(folder.error());
  const auto golden = load_golden(data_folder() / "goldens" / (GetParam() + ".safetensors"));
  ASSERT_TRUE(golden.has_value()) << to_string(golden.error());
  FromPretrainedOptions reference = in_float32();
  reference.backend = "reference";
  Runner plain(*folder, reference);
  Runner fast(*folder, in_float32());
  ASSERT_TRUE(plain.model.has_value()) << to_string(plain.model.error());
  ASSERT_TRUE(fast.model.has_value()) << to_string(fast.model.error());
  const auto a = plain.logits(golden->prompts[1]);
  const auto b = fast.logits(golden->prompts[1]);
  ASSERT_TRUE(a.has_value()) << to_string(a.error());
  ASSERT_TRUE(b.has_value()) << to_string(b.error());
  // LLM.int8: an activation that lies between two codes may be rounded to the other one.
  const double tolerance = GetParam().starts_with("bnb-int8") ? 2e-2 : kAttentionTolerance;
  EXPECT_LE(max_abs_difference(*a, *b), tolerance * golden->logits_std);
}

class Decode : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Every, Decode, testing::ValuesIn(model_names()),
                         [](const auto& test) { return test_name(test.param); });

// After the first token the arena has what a token needs; a block of the cache serves 64 of them.
TEST_P(Decode, TakesNoNewScratchMemoryPerToken) {
  const auto folder = model_folder(GetParam());
  ASSERT_TRUE(folder.has_value()) << to_string(folder.error());
  for (const FromPretrainedOptions& options : {in_float32(), in_auto()}) {
    Runner runner(*folder, options);
    ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
    const auto cache = (*runner.model)->make_cache(60);
    const int32_t token = 7;
    for (int warm_up = 0; warm_up < 2; ++warm_up) {
      ASSERT_TRUE(runner.logits_after({&token, 1}, *cache).has_value());
    }
    const size_t allocations = runner.arena.num_allocations();
    const size_t cache_bytes = cache->memory_bytes();
    while (cache->size() < cache->max_tokens()) {
      ASSERT_TRUE(runner.logits_after({&token, 1}, *cache).has_value());
    }
    EXPECT_EQ(runner.arena.num_allocations(), allocations);
    EXPECT_EQ(cache->memory_bytes(), cache_bytes);
  }
}

}  // namespace
}  // namespace nibble::test
