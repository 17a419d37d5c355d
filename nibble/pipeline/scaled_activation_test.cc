// Scales of activations (AutoAWQ's ScaledActivation) on their way through models, quantizers and files.

#include <algorithm>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/models/input_scales.h"
#include "nibble/models/load_weights.h"
#include "nibble/pipeline/convert_quantized.h"
#include "nibble/pipeline/folded_block.h"
#include "nibble/pipeline/method.h"
#include "nibble/pipeline/quantize.h"
#include "nibble/pipeline/test_model.h"
#include "nibble/quantization/dequantized_checkpoint.h"

namespace nibble {
namespace {

using test::logits_of;
using test::relative_difference;
using test::some_tokens;
using testing::AllOf;
using testing::HasSubstr;

constexpr size_t kScaledTokens = 24;

// What Transformers calls the modules: AWQ_SCALES_MAPPINGS of its integrations/awq.py.
const std::map<std::string, std::string> kScales = {
    {"bloom", "transformer.h.0.mlp.gelu_impl.scales"},
    {"falcon_7b", "transformer.h.0.mlp.act.scales"},
    {"falcon_new", "transformer.h.0.mlp.act.scales"},
    {"falcon_rw_alibi", "transformer.h.0.mlp.act.scales"},
    {"falcon_rw_alibi_long", "transformer.h.0.mlp.act.scales"},
    {"gpt_bigcode", "transformer.h.0.mlp.act.scales"},
    {"gpt_neox", "gpt_neox.layers.0.mlp.act.scales"},
    {"gpt_neox_sequential", "gpt_neox.layers.0.mlp.act.scales"},
    {"gptj", "transformer.h.0.mlp.act.scales"},
    {"mpt", "transformer.blocks.0.ffn.act.scales"},
    {"starcoder2", "model.layers.0.mlp.act.scales"},
};

const ScaleGroup* group_of_activation(const std::vector<ScaleGroup>& groups) {
  const auto found = std::find_if(groups.begin(), groups.end(),
                                  [](const ScaleGroup& group) { return !group.activation.empty(); });
  return found == groups.end() ? nullptr : &*found;
}

std::map<std::string, Tensor> tensors_of(const Checkpoint& checkpoint) {
  std::map<std::string, Tensor> tensors;
  for (const auto& entry : checkpoint.tensors()) {
    tensors[entry.first] = checkpoint.tensor(entry.first).value();
  }
  return tensors;
}

void write_model(const ModelSource& source, const std::map<std::string, Tensor>& tensors,
                 const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  ASSERT_TRUE(write_safetensors(folder / "model.safetensors", tensors).has_value());
  Json config = source.config.json;
  config.erase("quantization_config");
  ASSERT_TRUE(write_file(folder / "config.json", dump_json(config)).has_value());
}

TEST(ScaledActivation, IsKnownWhereTransformersKnowsIt) {
  for (const std::string& name : test::architecture_names()) {
    const ModelSource source = test::open_architecture(name);
    std::vector<std::string> found;
    for (const ModuleSlot& slot : source.slots) {
      if (!slot.input_scales.empty()) found.push_back(slot.input_scales);
    }
    if (!kScales.contains(name)) {
      EXPECT_TRUE(found.empty()) << name;
      continue;
    }
    ASSERT_EQ(found.size(), source.config.num_hidden_layers) << name;
    EXPECT_EQ(found.front(), kScales.at(name));
  }
}

TEST(ScaledActivation, FoldingKeepsWhatTheModelComputes) {
  ThreadPool pool(1);
  for (const auto& [name, tensor] : kScales) {
    const ModelSource source = test::open_architecture(name);
    const auto groups =
        scale_groups(source.spec, block_modules(source.spec, 0, source.prefix_missing), source.slots);
    const ScaleGroup* const group = group_of_activation(groups);
    ASSERT_NE(group, nullptr) << name;
    std::mt19937 rng(5);
    std::vector<float> scales(source.slot(group->layers.front()).shape[1]);
    for (float& scale : scales) scale = std::uniform_real_distribution<float>(0.5f, 2.f)(rng);
    FoldedBlock block(source);
    ASSERT_TRUE(block.fold(*group, scales, pool).has_value());

    FloatTensors changed = std::move(block).take_changed();
    ASSERT_TRUE(changed.contains(tensor)) << name;
    const std::vector<int32_t> tokens = some_tokens(source, kScaledTokens);
    const std::vector<float> expected = test::logits_with(source, {}, tokens);
    EXPECT_LT(relative_difference(test::logits_with(source, changed, tokens), expected), 1e-5) << name;
    changed.erase(tensor);
    EXPECT_GT(relative_difference(test::logits_with(source, changed, tokens), expected), 1e-3) << name;
  }
}

// AWQ by the original's algorithm, which scales what it finds.
class QuantizedBloom : public testing::Test {
 protected:
  void SetUp() override {
    const ModelSource source = test::open_architecture("bloom");
    tokens_ = some_tokens(source, kScaledTokens);
    quantize(source.files, "awq:compat", folder_.path() / "awq", false);
  }
  void quantize(const ModelFiles& files, std::string_view name, const std::filesystem::path& out,
                bool from_quantized) {
    QuantizeOptions options = parse_method(name == "awq:compat" ? "awq" : name).value().options;
    if (auto* const awq = std::get_if<AwqConfig>(&options.config)) awq->group_size = 32;
    if (auto* const gptq = std::get_if<GPTQConfig>(&options.config)) gptq->group_size = 32;
    options.effort = name == "awq:compat" ? Effort::kCompat : Effort::kDefault;
    const ModelSource source = ModelSource::open(files).value();
    std::vector<int32_t> ids(8 * kScaledTokens);
    std::mt19937 rng(3);
    for (int32_t& id : ids) id = static_cast<int32_t>(rng() % source.config.vocab_size);
    const auto data = folder_.path() / "tokens.safetensors";
    ASSERT_TRUE(write_safetensors(
        data, {{"input_ids", Tensor::of(DType::kI32, {8, kScaledTokens}, std::move(ids))}}));
    options.dataset = {{data, {}}};
    options.check = false;  // it needs text
    options.from_quantized = from_quantized;
    const auto result = quantize_model(files, out, options, pool_);
    ASSERT_TRUE(result.has_value()) << to_string(result.error());
  }
  ModelSource awq() const { return test::open_model(folder_.path() / "awq"); }

  ThreadPool pool_{1};
  const test::TemporaryFolder folder_;
  std::vector<int32_t> tokens_;
};

TEST_F(QuantizedBloom, HasScalesThatAreNotOne) {
  const ModelSource source = awq();
  for (const ModuleSlot& slot : source.slots) {
    if (slot.input_scales.empty()) continue;
    ASSERT_NE(source.checkpoint->find(slot.input_scales), nullptr) << slot.input_scales;
    EXPECT_EQ(*source.checkpoint->find(slot.input_scales), (TensorInfo{DType::kF16, {slot.shape[1]}}));
    const std::vector<float> scales = read_input_scales(*source.checkpoint, slot.input_scales).value();
    EXPECT_TRUE(std::any_of(scales.begin(), scales.end(), [](float s) { return s != 1.f; }))
        << slot.input_scales;
  }
}

TEST_F(QuantizedBloom, HasOnesWhereNothingIsScaled) {
  quantize(test::open_architecture("bloom").files, "awq", folder_.path() / "default", false);
  const ModelSource source = test::open_model(folder_.path() / "default");
  const std::string& name = kScales.at("bloom");
  ASSERT_NE(source.checkpoint->find(name), nullptr);
  const std::vector<float> scales = read_input_scales(*source.checkpoint, name).value();
  EXPECT_EQ(scales, std::vector<float>(scales.size(), 1.f));
}

TEST_F(QuantizedBloom, IsTheSameModelInFloats) {
  const ModelSource source = awq();
  const auto floats = dequantize_on_the_fly(source.checkpoint, *source.quantization).value();
  const auto absorbed = absorb_input_scales(floats, source.slots);
  EXPECT_EQ(absorbed->find(kScales.at("bloom")), nullptr);
  write_model(source, tensors_of(*absorbed), folder_.path() / "floats");
  EXPECT_LT(relative_difference(logits_of(folder_.path() / "floats", tokens_),
                                logits_of(folder_.path() / "awq", tokens_)),
            1e-5);
}

TEST_F(QuantizedBloom, CanBeQuantizedAgain) {
  for (const char* const method : {"gptq:8", "awq:compat", "int8"}) {
    const auto out = folder_.path() / "again" / method;
    std::filesystem::create_directories(out.parent_path());
    quantize(awq().files, method, out, true);
    const ModelSource again = test::open_model(out);
    EXPECT_EQ(again.checkpoint->find(kScales.at("bloom")) != nullptr,
              std::string_view(method).starts_with("awq"));
    EXPECT_LT(relative_difference(logits_of(out, tokens_), logits_of(folder_.path() / "awq", tokens_)), 0.1)
        << method;
  }
}

TEST_F(QuantizedBloom, GoesIntoLayoutsOfAwqAlone) {
  ConvertOptions options;
  options.layout = "gemv";
  const auto gemv = convert_quantized(awq().files, folder_.path() / "gemv", options, pool_);
  ASSERT_TRUE(gemv.has_value()) << to_string(gemv.error());
  EXPECT_EQ(logits_of(folder_.path() / "gemv", tokens_), logits_of(folder_.path() / "awq", tokens_));
  options.layout = "gptq_v2";
  const auto gptq = convert_quantized(awq().files, folder_.path() / "gptq", options, pool_);
  ASSERT_FALSE(gptq.has_value());
  EXPECT_THAT(to_string(gptq.error()), AllOf(HasSubstr("gelu_impl.scales"), HasSubstr("--to float")));
}

TEST_F(QuantizedBloom, WithDamagedScalesIsRefused) {
  const ModelSource source = awq();
  auto tensors = tensors_of(*source.checkpoint);
  const std::string& name = kScales.at("bloom");
  const size_t width = tensors.at(name).size();
  const auto error = [&](std::vector<float> scales) {
    const Shape shape = {scales.size()};
    tensors[name] = Tensor::of(DType::kF32, shape, std::move(scales));
    EXPECT_TRUE(write_safetensors(folder_.path() / "awq" / "model.safetensors", tensors).has_value());
    const auto model = AutoModelForCausalLM::from_pretrained((folder_.path() / "awq").string(), {}, pool_);
    return model ? std::string() : to_string(model.error());
  };
  std::vector<float> zero(width, 1.f);
  zero[3] = 0.f;
  EXPECT_THAT(error(zero), AllOf(HasSubstr(name), HasSubstr("element 3 is 0")));
  EXPECT_THAT(error(std::vector<float>(width - 1, 1.f)), AllOf(HasSubstr(name), HasSubstr("shape")));
}

}  // namespace
}  // namespace nibble
