// Prompt lookup against plain decoding, on real models: the same tokens, greedy or sampled.

#include <algorithm>
#include <optional>
#include <ostream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "nibble/base/arena.h"
#include "nibble/generation/generate.h"
#include "nibble/models/auto_model.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

struct Case {
  std::string name;  // of tests/data/models or tests/data/architectures
  bool architecture = false;
  ComputeMode compute = ComputeMode::kAuto;
};

void PrintTo(const Case& test, std::ostream* out) { *out << test.name; }

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* model : {"tiny-llama", "gptq-4b-g128-desc_act", "awq-gemm-g64", "bnb-nf4"}) {
    all.push_back({model, false, ComputeMode::kF32});
    all.push_back({model, false, ComputeMode::kAuto});
  }
  all.push_back({"bnb-int8", false, ComputeMode::kAuto});
  // Windows, frequencies that grow with the length or switch at one, ALiBi, learned positions, experts.
  for (const std::string& name : test::architecture_names()) all.push_back({name, true});
  return all;
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  std::string name = info.param.name + (info.param.compute == ComputeMode::kF32 ? "_f32" : "_auto");
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '-'; }, '_');
  return name;
}

class LookupDecoding : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const auto tokenizer_folder = test::model_folder("tiny-llama").value();
    tokenizer_.emplace(AutoTokenizer::from_pretrained(tokenizer_folder.string()).value());
    const std::string folder = GetParam().architecture
                                   ? (test::data_folder() / "architectures" / GetParam().name).string()
                                   : test::model_folder(GetParam().name).value().string();
    FromPretrainedOptions options;
    options.compute = GetParam().compute;
    auto model = AutoModelForCausalLM::from_pretrained(folder, options, pool_);
    ASSERT_TRUE(model.has_value()) << to_string(model.error());
    model_ = *std::move(model);
  }

  GenerateResult run(const std::vector<int32_t>& prompt, const GenerationConfig& config, size_t lookup) {
    const auto cache = model_->make_cache(100);
    GenerateOptions options;
    options.max_context = 100;
    options.ignore_eos = true;
    options.lookup_tokens = lookup;
    ExecutionContext context{pool_, arena_};
    auto result = generate(*model_, *tokenizer_, prompt, config, options, *cache, context);
    EXPECT_TRUE(result.has_value()) << to_string(result.error());
    if (!result) return {};
    EXPECT_EQ(cache->size(), prompt.size() + result->tokens.size() - 1);
    return *std::move(result);
  }

  ThreadPool pool_{1};
  Arena arena_;
  std::optional<Tokenizer> tokenizer_;
  std::unique_ptr<CausalLM> model_;
};

INSTANTIATE_TEST_SUITE_P(Models, LookupDecoding, testing::ValuesIn(cases()), case_name);

// Repeats itself, so that there is something to find; of the smallest vocabulary, 64.
const std::vector<int32_t> kPrompts[] = {
    {17, 45, 53, 49, 17, 45, 53, 49, 17, 45},
    {7, 7, 7, 8},
    {11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 24, 25, 12, 13},
};

TEST_P(LookupDecoding, GreedyTokensAreThoseOfPlainDecoding) {
  size_t accepted = 0;
  for (const auto& prompt : kPrompts) {
    GenerationConfig config;
    config.max_new_tokens = 40;
    const GenerateResult plain = run(prompt, config, 0);
    EXPECT_EQ(plain.drafted_tokens, 0u);
    for (const size_t lookup : {1u, 3u, 8u}) {
      const GenerateResult drafted = run(prompt, config, lookup);
      EXPECT_EQ(drafted.tokens, plain.tokens) << "lookup " << lookup;
      EXPECT_EQ(drafted.text, plain.text);
      EXPECT_EQ(drafted.finish_reason, plain.finish_reason);
      accepted += drafted.accepted_tokens;
    }
  }
  // Greedy decoding of a small model ends in a loop; that of random weights need not.
  EXPECT_TRUE(accepted > 0 || GetParam().architecture);
}

TEST_P(LookupDecoding, SampledTokensAreThoseOfPlainDecoding) {
  for (const uint64_t seed : {1u, 2u}) {
    GenerationConfig config;
    config.max_new_tokens = 30;
    config.do_sample = true;
    config.seed = seed;
    config.temperature = 0.3;
    config.repetition_penalty = 1.05;
    const GenerateResult plain = run(kPrompts[0], config, 0);
    for (const size_t lookup : {2u, 5u}) {
      EXPECT_EQ(run(kPrompts[0], config, lookup).tokens, plain.tokens) << "lookup " << lookup;
    }
  }
}

// What the prompt's pass took is enough for all tokens behind it, drafted or not.
TEST_P(LookupDecoding, TokensTakeNoMoreMemory) {
  for (const size_t lookup : {0u, 4u}) {
    GenerationConfig config;
    config.max_new_tokens = 30;
    Arena arena;
    ExecutionContext context{pool_, arena};
    const auto cache = model_->make_cache(100);
    std::vector<size_t> allocations;
    GenerateOptions options;
    options.ignore_eos = true;
    options.lookup_tokens = lookup;
    options.on_token = [&](int32_t, std::string_view) {
      allocations.push_back(arena.num_allocations());
      return true;
    };
    ASSERT_TRUE(generate(*model_, *tokenizer_, kPrompts[0], config, options, *cache, context).has_value());
    EXPECT_EQ(allocations.front(), allocations.back()) << "lookup " << lookup;
  }
}

TEST(LookupDecodingOfLlmInt8, IsRefusedWhereTokensSeeEachOther) {
  ThreadPool pool(1);
  Arena arena;
  ExecutionContext context{pool, arena};
  const auto folder = test::model_folder("bnb-int8", {.with_tokenizer = true}).value().string();
  FromPretrainedOptions options;
  options.compute = ComputeMode::kF32;
  const auto model = AutoModelForCausalLM::from_pretrained(folder, options, pool).value();
  const Tokenizer tokenizer = AutoTokenizer::from_pretrained(folder).value();
  const auto cache = model->make_cache(50);
  GenerateOptions drafting;
  drafting.lookup_tokens = 3;
  const auto result = generate(*model, tokenizer, kPrompts[0], {}, drafting, *cache, context);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(result.error().fix.find("--lookup 0"), std::string::npos);
}

}  // namespace
}  // namespace nibble
