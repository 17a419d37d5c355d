// save_pretrained: what was quantized while loading is written as bitsandbytes writes it, and comes
// back as the same numbers.

#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "tests/golden/golden.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

void expect_same_logits_after_saving(const FromPretrainedOptions& options) {
  const auto source = model_folder("tiny-llama");
  ASSERT_TRUE(source.has_value()) << to_string(source.error());
  Runner original(*source, options);
  ASSERT_TRUE(original.model.has_value()) << to_string(original.model.error());
  const TemporaryFolder folder;
  const Status saved = (*original.model)->save_pretrained(folder.path(), 1'000'000);  // several shards
  ASSERT_TRUE(saved.has_value()) << to_string(saved.error());
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "model.safetensors.index.json"));

  FromPretrainedOptions plain = options;
  plain.quantization_config.reset();  // config.json says it now
  Runner reloaded(folder.path(), plain);
  ASSERT_TRUE(reloaded.model.has_value()) << to_string(reloaded.model.error());
  EXPECT_EQ((*reloaded.model)->quantization_config().has_value(), options.quantization_config.has_value());
  const std::vector<int32_t> tokens = {1, 50, 7, 900, 33, 2, 1999};
  const auto expected = original.logits(tokens);
  const auto again = reloaded.logits(tokens);
  ASSERT_TRUE(expected.has_value()) << to_string(expected.error());
  ASSERT_TRUE(again.has_value()) << to_string(again.error());
  EXPECT_EQ(std::memcmp(expected->data(), again->data(), expected->size() * sizeof(float)), 0);
}

TEST(SavePretrained, AFloatModelComesBack) { expect_same_logits_after_saving(in_float32()); }

TEST(SavePretrained, Nf4WithDoubleQuantizationComesBack) {
  FromPretrainedOptions options = in_float32();
  options.quantization_config = BitsAndBytesConfig{
      .load_in_4bit = true, .bnb_4bit_quant_type = "nf4", .bnb_4bit_use_double_quant = true};
  expect_same_logits_after_saving(options);
}

TEST(SavePretrained, Int8ComesBack) {
  FromPretrainedOptions options = in_float32();
  options.quantization_config = BitsAndBytesConfig{.load_in_8bit = true};
  expect_same_logits_after_saving(options);
}

}  // namespace
}  // namespace nibble::test
