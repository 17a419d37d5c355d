#include "nibble/evaluation/layer_comparison.h"

#include <cmath>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/checkpoint/checkpoint.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/models/auto_model.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

std::unique_ptr<CausalLM> load_folder(const std::filesystem::path& folder, ThreadPool& pool) {
  FromPretrainedOptions options;
  options.compute = ComputeMode::kF32;
  auto model = AutoModelForCausalLM::from_pretrained(folder.string(), options, pool);
  EXPECT_TRUE(model.has_value()) << (model ? "" : to_string(model.error()));
  return std::move(*model);
}

std::filesystem::path fixture(const std::string& name) {
  return test::model_folder(name, {.with_tokenizer = true}).value();
}

TextWindows some_text() {
  const ModelFiles files = find_model(fixture("tiny-llama").string()).value();
  const PretrainedConfig config =
      PretrainedConfig::from_json(parse_json(files.read_required("config.json").value()).value()).value();
  return cut_text(default_evaluation_text(), "text", {.window = 256, .max_tokens = 512}, files, config)
      .value();
}

TEST(CompareLayers, AModelBesideItselfHasNoError) {
  ThreadPool pool;
  const auto model = load_folder(fixture("tiny-llama"), pool);
  const auto twin = load_folder(fixture("tiny-llama"), pool);
  const auto comparison = compare_layers(*model, *twin, some_text(), 300, pool);
  ASSERT_TRUE(comparison) << to_string(comparison.error());
  ASSERT_EQ(comparison->layers.size(), model->config().num_hidden_layers);
  for (const LayerDifference& layer : comparison->layers) {
    EXPECT_EQ(layer.relative_error, 0);
    EXPECT_NEAR(layer.cosine, 1, 1e-12);
    EXPECT_EQ(layer.linears.size(), 7u);
    EXPECT_EQ(layer.worst()->added(), 0);
  }
  EXPECT_EQ(comparison->damaged, "");
}

// The original algorithms lose a few percent per linear; none is damaged.
TEST(CompareLayers, OrdinaryQuantizationIsNoDamage) {
  ThreadPool pool;
  const auto reference = load_folder(fixture("tiny-llama"), pool);
  for (const char* name : {"gptq-4b-g128", "awq-gemm-g64", "bnb-nf4", "bnb-int8"}) {
    const auto model = load_folder(fixture(name), pool);
    const auto comparison = compare_layers(*reference, *model, some_text(), 512, pool);
    ASSERT_TRUE(comparison) << to_string(comparison.error());
    EXPECT_EQ(comparison->damaged, "") << name;
    for (const LayerDifference& layer : comparison->layers) {
      EXPECT_GT(layer.relative_error, 0) << name;
      EXPECT_LT(layer.relative_error, 0.3) << name << " " << layer.layer;
      EXPECT_GT(layer.cosine, 0.95) << name;
    }
  }
}

// A folder like tiny-llama with one linear's weight spoilt.
void write_damaged(const std::string& module, const std::filesystem::path& folder) {
  const std::filesystem::path original = fixture("tiny-llama");
  const auto checkpoint = open_checkpoint(find_model(original.string()).value()).value();
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, info] : checkpoint->tensors()) {
    Tensor tensor = convert_tensor(checkpoint->tensor(name).value(), DType::kF32).value();
    if (name == module + ".weight") {
      std::vector<float> values = copy_elements<float>(tensor);
      for (size_t i = 0; i < values.size(); i += 3) values[i] = -values[i];
      tensor = Tensor::of(DType::kF32, info.shape, std::move(values));
    }
    tensors[name] = std::move(tensor);
  }
  ASSERT_TRUE(write_safetensors(folder / "model.safetensors", tensors));
  for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy_file(original / file, folder / file);
  }
}

TEST(CompareLayers, ADamagedLinearIsNamed) {
  ThreadPool pool;
  const auto reference = load_folder(fixture("tiny-llama"), pool);
  for (const std::string module : {"model.layers.1.mlp.down_proj", "model.layers.2.self_attn.q_proj",
                                   "model.layers.0.self_attn.o_proj"}) {
    const test::TemporaryFolder folder;
    write_damaged(module, folder.path());
    const auto model = load_folder(folder.path(), pool);
    const auto comparison = compare_layers(*reference, *model, some_text(), 512, pool);
    ASSERT_TRUE(comparison) << to_string(comparison.error());
    EXPECT_EQ(comparison->damaged, module);
    // The blocks before it are untouched.
    const size_t layer = static_cast<size_t>(module[13] - '0');
    for (size_t l = 0; l < layer; ++l) EXPECT_EQ(comparison->layers[l].relative_error, 0);
    EXPECT_GT(comparison->layers[layer].relative_error, 0);
    EXPECT_EQ(comparison->layers[layer].worst()->module, module);
  }
}

TEST(CompareLayers, OtherBlocksAreRefused) {
  ThreadPool pool(1);
  const auto reference = load_folder(fixture("tiny-llama"), pool);
  const auto other = load_folder(test::data_folder() / "architectures" / "qwen2", pool);
  TextWindows text;
  text.windows.push_back({{1, 2, 3, 4}, 1});
  const auto comparison = compare_layers(*reference, *other, text, 4, pool);
  ASSERT_FALSE(comparison);
  EXPECT_THAT(to_string(comparison.error()), testing::HasSubstr("different blocks"));
}

}  // namespace
}  // namespace nibble
