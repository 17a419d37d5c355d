#include "nibble/pipeline/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/models/auto_model.h"
#include "nibble/nn/kv_cache.h"
#include "nibble/pipeline/jobs.h"
#include "nibble/pipeline/test_model.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

using testing::HasSubstr;

std::filesystem::path tiny_llama() {
  const auto folder = test::model_folder("tiny-llama");
  EXPECT_TRUE(folder) << to_string(folder.error());
  return *folder;
}

std::vector<float> logits_of(const CausalLM& model, ThreadPool& pool) {
  const std::vector<int32_t> tokens = {5, 200, 31, 7, 900, 44, 1200, 3};
  Arena arena;
  ExecutionContext context{pool, arena};
  const auto cache = model.make_cache(tokens.size());
  std::vector<float> logits(tokens.size() * model.config().vocab_size);
  const SequenceChunk chunk = {tokens, cache.get(), tokens.size(), 0};
  EXPECT_TRUE(cache->reserve(tokens.size()));
  EXPECT_TRUE(model.forward({&chunk, 1}, {logits.data(), tokens.size(), model.config().vocab_size}, context));
  return logits;
}

// Transformers replaces every linear layer that the list does not name, whether there are codes for it or
// not.
TEST(SkipList, OfBitsAndBytesNamesTheRouters) {
  const auto list_of = [](const std::string& architecture) {
    QuantizationConfig config = BitsAndBytesConfig{.load_in_4bit = true};
    complete_skip_list(test::open_architecture(architecture), config);
    return std::get<BitsAndBytesConfig>(config).llm_int8_skip_modules;
  };
  EXPECT_EQ(list_of("qwen2_moe"), (std::vector<std::string>{"lm_head", "mlp.gate", "shared_expert_gate"}));
  EXPECT_FALSE(list_of("llama_bias").has_value());  // the default list is right
}

TEST(FromPretrained, CalibratesAGptqModelWhileLoadingAndSavesIt) {
  ThreadPool pool;
  const std::string tokens = (test::data_folder() / "calibration-tokens.safetensors").string();
  const auto model = AutoModelForCausalLM::from_pretrained(
      tiny_llama().string(),
      {.quantization_config = GPTQConfig{.bits = 4, .dataset = tokens + ":num=8"},
       .quantizer = calibrate_while_loading,
       .compute = ComputeMode::kF32},
      pool);
  ASSERT_TRUE(model) << to_string(model.error());
  EXPECT_EQ(quant_method(*(*model)->quantization_config()), "gptq");

  const test::TemporaryFolder saved;
  ASSERT_TRUE((*model)->save_pretrained(saved.path(), size_t{5} << 30));
  const auto again =
      AutoModelForCausalLM::from_pretrained(saved.path().string(), {.compute = ComputeMode::kF32}, pool);
  ASSERT_TRUE(again) << to_string(again.error());
  EXPECT_EQ(logits_of(**again, pool), logits_of(**model, pool));
}

TEST(FromPretrained, SaysThatCalibrationNeedsAQuantizer) {
  ThreadPool pool;
  const auto model = AutoModelForCausalLM::from_pretrained(tiny_llama().string(),
                                                           {.quantization_config = GPTQConfig{}}, pool);
  ASSERT_FALSE(model);
  EXPECT_THAT(model.error().fix, HasSubstr("calibrate_while_loading"));
}

}  // namespace
}  // namespace nibble
