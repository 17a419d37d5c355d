// The same bytes of logits for any number of threads, any chunking and any company in the batch; but
// for LLM.int8 in float32, which takes the tokens of a call together because the original does.

#include <cstring>
#include <ostream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/golden/golden.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

struct Case {
  std::string model;  // of tests/data/models, or architectures/NAME
  ComputeMode compute;
};

std::string case_name(const Case& test) {
  return test_name(test.model) + (test.compute == ComputeMode::kF32 ? "_f32" : "_auto");
}

void PrintTo(const Case& test, std::ostream* out) { *out << case_name(test); }

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* model : {"tiny-llama", "gptq-4b-g128-desc_act", "gptq-3b-g64", "awq-gemm-g32-skip",
                            "bnb-nf4", "bnb-int8", "bnb-int8-outlier-skip"}) {
    all.push_back({model, ComputeMode::kF32});
    all.push_back({model, ComputeMode::kAuto});
  }
  // Each building block of the architectures at least once.
  for (const char* name : {"bloom",
                           "cohere",
                           "cohere2",
                           "deepseek_v2",
                           "deepseek_v3",
                           "falcon_7b",
                           "falcon_new",
                           "gemma3_text",
                           "glm4",
                           "gpt2",
                           "gpt_bigcode",
                           "gpt_neox",
                           "gptj",
                           "mixtral",
                           "mpt",
                           "olmo",
                           "olmo2",
                           "opt",
                           "phi3_longrope_long",
                           "qwen2_moe",
                           "qwen3_moe",
                           "stablelm_qk_layernorm"}) {
    all.push_back({std::string("architectures/") + name, ComputeMode::kF32});
    all.push_back({std::string("architectures/") + name, ComputeMode::kAuto});
  }
  return all;
}

class Determinism : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string& model = GetParam().model;
    const bool is_architecture = model.starts_with("architectures/");
    auto folder = is_architecture ? data_folder() / model : model_folder(model);
    ASSERT_TRUE(folder.has_value()) << to_string(folder.error());
    folder_ = *std::move(folder);
    auto golden = load_golden(is_architecture ? folder_ / "goldens.safetensors"
                                              : data_folder() / "goldens" / (model + ".safetensors"));
    ASSERT_TRUE(golden.has_value()) << to_string(golden.error());
    prompts_ = golden->prompts;
    options_.compute = GetParam().compute;
  }

  static bool takes_calls_together() {
    return GetParam().compute == ComputeMode::kF32 && GetParam().model.starts_with("bnb-int8");
  }

  // Not operator==: NaN must equal itself and -0 must not equal 0.
  static bool same_bytes(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }

  std::filesystem::path folder_;
  std::vector<std::vector<int32_t>> prompts_;
  FromPretrainedOptions options_;
};

INSTANTIATE_TEST_SUITE_P(Every, Determinism, testing::ValuesIn(cases()),
                         [](const auto& test) { return case_name(test.param); });

TEST_P(Determinism, AnyNumberOfThreads) {
  Runner one(folder_, options_, 1);
  Runner two(folder_, options_, 2);
  Runner five(folder_, options_, 5);
  ASSERT_TRUE(one.model.has_value()) << to_string(one.model.error());
  const auto expected = one.logits(prompts_[0]);
  ASSERT_TRUE(expected.has_value()) << to_string(expected.error());
  EXPECT_TRUE(same_bytes(two.logits(prompts_[0]).value(), *expected)) << "2 threads";
  EXPECT_TRUE(same_bytes(five.logits(prompts_[0]).value(), *expected)) << "5 threads";
}

TEST_P(Determinism, AnyChunking) {
  if (takes_calls_together()) GTEST_SKIP();
  Runner runner(folder_, options_);
  ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
  const auto expected = runner.logits(prompts_[0]);
  ASSERT_TRUE(expected.has_value()) << to_string(expected.error());
  for (const size_t chunk : {1u, 3u, 7u, 16u}) {
    EXPECT_TRUE(same_bytes(runner.logits(prompts_[0], chunk).value(), *expected)) << "chunks of " << chunk;
  }
}

TEST_P(Determinism, AloneOrInABatch) {
  if (takes_calls_together()) GTEST_SKIP();
  Runner runner(folder_, options_, 2);
  ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
  std::vector<std::vector<int32_t>> sequences = prompts_;
  sequences[1].resize(13);
  sequences.push_back({prompts_[1].begin() + 20, prompts_[1].begin() + 21});
  const auto together = runner.batch_logits(sequences);
  ASSERT_TRUE(together.has_value()) << to_string(together.error());
  for (size_t s = 0; s < sequences.size(); ++s) {
    EXPECT_TRUE(same_bytes(runner.logits(sequences[s]).value(), (*together)[s])) << "sequence " << s;
  }
}

// Beyond one piece of attention, whose pieces threads share when a token comes alone.
TEST(DeterminismOfLongSequences, AnyNumberOfThreadsChunkingAndCacheType) {
  const auto folder = model_folder("tiny-llama").value();
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 1000; ++i) tokens.push_back(i * i * 31 % 2039);
  for (const char* type : {"f32", "f16", "int8"}) {
    FromPretrainedOptions options;
    options.kv_cache_type = type;
    Runner one(folder, options, 1);
    Runner five(folder, options, 5);
    ASSERT_TRUE(one.model.has_value()) << to_string(one.model.error());
    const auto expected = one.logits(tokens).value();
    const auto cache = (*five.model)->make_cache(tokens.size());
    const auto begin = std::span<const int32_t>(tokens).first(980);
    auto got = five.logits_after(begin, *cache, 70).value();
    for (size_t t = begin.size(); t < tokens.size(); ++t) {
      const auto row = five.logits_after(std::span<const int32_t>(tokens).subspan(t, 1), *cache).value();
      got.insert(got.end(), row.begin(), row.end());
    }
    ASSERT_EQ(got.size(), expected.size());
    EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0) << type;
  }
}

// A cache that was cut back gives what a new one gives.
TEST_P(Determinism, TruncatedCacheForgets) {
  if (takes_calls_together()) GTEST_SKIP();
  Runner runner(folder_, options_);
  ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
  const auto expected = runner.logits(prompts_[0]);
  ASSERT_TRUE(expected.has_value()) << to_string(expected.error());
  const auto cache = (*runner.model)->make_cache(prompts_[0].size());
  const auto first = std::span<const int32_t>(prompts_[0]).first(20);
  ASSERT_TRUE(runner.logits_after(first, *cache).has_value());
  ASSERT_TRUE(runner.logits_after(std::span<const int32_t>(prompts_[1]).first(9), *cache).has_value());
  cache->truncate(20);
  const auto rest = runner.logits_after(std::span<const int32_t>(prompts_[0]).subspan(20), *cache);
  ASSERT_TRUE(rest.has_value()) << to_string(rest.error());
  const std::vector<float> tail(expected->end() - static_cast<std::ptrdiff_t>(rest->size()), expected->end());
  EXPECT_TRUE(same_bytes(*rest, tail));
}

}  // namespace
}  // namespace nibble::test
