// save_pretrained + from_pretrained: the same bytes of logits, of every model of tests/data and of what was
// quantized while loading.

#include <cstring>
#include <filesystem>
#include <ostream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/golden/golden.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

void expect_same_logits_after_saving(const std::filesystem::path& source,
                                     const FromPretrainedOptions& options) {
  Runner original(source, options);
  ASSERT_TRUE(original.model.has_value()) << to_string(original.model.error());
  const TemporaryFolder folder;
  // Several shards, whatever the size of the model.
  const size_t max_shard_size = (*original.model)->weight_bytes().total() / 3;
  const Status saved = (*original.model)->save_pretrained(folder.path(), max_shard_size);
  ASSERT_TRUE(saved.has_value()) << to_string(saved.error());
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "model.safetensors.index.json"));

  FromPretrainedOptions plain = options;
  plain.quantization_config.reset();  // config.json says it now
  Runner reloaded(folder.path(), plain);
  ASSERT_TRUE(reloaded.model.has_value()) << to_string(reloaded.model.error());
  EXPECT_EQ((*reloaded.model)->quantization_config().has_value(),
            (*original.model)->quantization_config().has_value());
  const std::vector<int32_t> tokens = {1, 50, 7, 60, 33, 2, 19};
  const auto expected = original.logits(tokens);
  const auto again = reloaded.logits(tokens);
  ASSERT_TRUE(expected.has_value()) << to_string(expected.error());
  ASSERT_TRUE(again.has_value()) << to_string(again.error());
  ASSERT_EQ(again->size(), expected->size());
  EXPECT_EQ(std::memcmp(expected->data(), again->data(), expected->size() * sizeof(float)), 0);
}

struct SavedModel {
  std::string name;  // of tests/data/models, or architectures/NAME
  ComputeMode compute;
};

std::string case_name(const SavedModel& test) {
  return test_name(test.name) + (test.compute == ComputeMode::kF32 ? "_f32" : "_auto");
}

void PrintTo(const SavedModel& test, std::ostream* out) { *out << case_name(test); }

std::vector<SavedModel> saved_models() {
  std::vector<SavedModel> all;
  for (const std::string& name : model_names()) {
    all.push_back({name, ComputeMode::kF32});
    all.push_back({name, ComputeMode::kAuto});
  }
  for (const std::string& name : architecture_names()) {
    all.push_back({"architectures/" + name, ComputeMode::kAuto});
  }
  return all;
}

class SavePretrained : public testing::TestWithParam<SavedModel> {};
INSTANTIATE_TEST_SUITE_P(Every, SavePretrained, testing::ValuesIn(saved_models()),
                         [](const auto& test) { return case_name(test.param); });

TEST_P(SavePretrained, ComesBack) {
  const std::string& name = GetParam().name;
  FromPretrainedOptions options;
  options.compute = GetParam().compute;
  if (name.starts_with("architectures/")) {
    expect_same_logits_after_saving(data_folder() / name, options);
  } else {
    const auto folder = model_folder(name);
    ASSERT_TRUE(folder.has_value()) << to_string(folder.error());
    expect_same_logits_after_saving(*folder, options);
  }
}

void expect_quantized_comes_back(const BitsAndBytesConfig& config) {
  const auto source = model_folder("tiny-llama");
  ASSERT_TRUE(source.has_value()) << to_string(source.error());
  for (const ComputeMode compute : {ComputeMode::kF32, ComputeMode::kAuto}) {
    FromPretrainedOptions options;
    options.compute = compute;
    options.quantization_config = config;
    expect_same_logits_after_saving(*source, options);
  }
}

TEST(SaveWhatWasQuantizedWhileLoading, Nf4WithDoubleQuantization) {
  expect_quantized_comes_back(
      {.load_in_4bit = true, .bnb_4bit_quant_type = "nf4", .bnb_4bit_use_double_quant = true});
}

TEST(SaveWhatWasQuantizedWhileLoading, Int8) { expect_quantized_comes_back({.load_in_8bit = true}); }

}  // namespace
}  // namespace nibble::test
