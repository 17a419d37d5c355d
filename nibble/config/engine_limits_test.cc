#include "nibble/config/engine_limits.h"

#include <array>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr std::array kAll = {Engine::kVllm, Engine::kTransformers, Engine::kGptqModel};

WantedLinear linear(size_t out_features, size_t in_features, int64_t group_size = 128) {
  return {.module = "model.layers.0.mlp.down_proj",
          .out_features = out_features,
          .in_features = in_features,
          .group_size = group_size};
}

std::string refusal(Engine engine, const QuantizationConfig& config, std::vector<WantedLinear> linears) {
  const Status status = check_engine(engine, config, linears);
  if (status) return "(accepted)";
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE(status.error().fix.empty()) << status.error().what;
  return to_string(status.error());
}

GPTQConfig gptq(std::string format = "gptq") { return {.checkpoint_format = std::move(format)}; }
AwqConfig awq(std::string version = "gemm") { return {.version = std::move(version)}; }

TEST(Engines, AreKnownByName) {
  EXPECT_EQ(engine_from_name("vllm").value(), Engine::kVllm);
  EXPECT_EQ(engine_from_name("transformers").value(), Engine::kTransformers);
  EXPECT_EQ(engine_from_name("gptqmodel").value(), Engine::kGptqModel);
  const auto unknown = engine_from_name("llama.cpp");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(to_string(unknown.error()),
            "there is no engine \"llama.cpp\"\n  Choose one of vllm, transformers, gptqmodel.");
}

TEST(CheckEngine, TheUsualSettingsFitEveryEngine) {
  const std::vector<WantedLinear> linears = {linear(4096, 4096), linear(4096, 11008), linear(1024, 4096)};
  for (const Engine engine : kAll) {
    EXPECT_EQ(refusal(engine, gptq(), linears), "(accepted)") << engine_name(engine);
    EXPECT_EQ(refusal(engine, awq(), linears), "(accepted)") << engine_name(engine);
    EXPECT_EQ(refusal(engine, awq("exllama"), linears), "(accepted)") << engine_name(engine);
  }
}

TEST(CheckEngine, VllmNeedsGroupsThatDivideEveryLayer) {
  // SmolLM2-135M: 576 = 4.5 * 128.
  EXPECT_EQ(
      refusal(Engine::kVllm, gptq(), {linear(576, 1536), linear(576, 576)}),
      "model.layers.0.mlp.down_proj: vLLM cannot read this layer: group_size 128 does not divide in_features "
      "576\n  Group sizes that fit every layer: 16, 32, 64. Or -1 for one scale per output.");
  EXPECT_EQ(refusal(Engine::kVllm, gptq(), {linear(576, 576, 64)}), "(accepted)");
  EXPECT_EQ(refusal(Engine::kVllm, gptq(), {linear(576, 576, -1)}), "(accepted)");
  EXPECT_EQ(refusal(Engine::kVllm, gptq(), {linear(576, 576, 96)}), "(accepted)");
  for (const Engine engine : {Engine::kTransformers, Engine::kGptqModel}) {
    EXPECT_EQ(refusal(engine, gptq(), {linear(576, 576)}), "(accepted)");
    EXPECT_THAT(refusal(engine, gptq(), {linear(576, 576, 96)}), HasSubstr("no kernel for group_size 96"));
  }
}

TEST(CheckEngine, AwqNeedsGroupsThatDivideEveryLayer) {
  for (const Engine engine : kAll) {
    EXPECT_THAT(refusal(engine, awq(), {linear(576, 576)}),
                AllOf(HasSubstr("group_size 128 does not divide in_features 576"), HasSubstr("32, 64.")));
  }
}

TEST(CheckEngine, VllmsAwqKernelsCountInPiecesOf64And32) {
  EXPECT_THAT(refusal(Engine::kVllm, awq(), {linear(96, 256)}),
              HasSubstr("out_features 96 is no multiple of 64"));
  EXPECT_THAT(refusal(Engine::kVllm, awq(), {linear(64, 256, 16)}), HasSubstr("no kernel for group_size 16"));
  // 576 is no multiple of 128, so that Marlin does not take it and the old kernel must.
  EXPECT_EQ(refusal(Engine::kVllm, awq(), {linear(192, 576, 64)}), "(accepted)");
  EXPECT_EQ(refusal(Engine::kVllm, awq(), {linear(192, 768, 128)}), "(accepted)");
  EXPECT_THAT(refusal(Engine::kVllm, awq(), {linear(192, 768, 256)}),
              AllOf(HasSubstr("group_size 256 must divide out_features 192"), HasSubstr("32, 64, 128.")));
  EXPECT_EQ(refusal(Engine::kTransformers, awq(), {linear(96, 256, 16)}), "(accepted)");
}

TEST(CheckEngine, AllReasonsOfALayerAreNamed) {
  WantedLinear odd = linear(100, 100, 48);
  odd.bits = 5;
  EXPECT_THAT(
      refusal(Engine::kVllm, gptq(), {odd}),
      AllOf(HasSubstr("5 bits"), HasSubstr("in_features 100 is no multiple of 32"),
            HasSubstr("out_features 100 is no multiple of 32"),
            HasSubstr("group_size 48 does not divide in_features 100"), HasSubstr("--bits 2, 3, 4, 8")));
  odd.bits = 4;
  EXPECT_THAT(refusal(Engine::kVllm, gptq(), {odd}),
              AllOf(HasSubstr("no multiple of 8"),
                    HasSubstr(R"(--dynamic '{"-:model\\.layers\\.0\\.mlp\\.down_proj": {}}')")));
}

TEST(CheckEngine, LayoutsThatAnEngineDoesNotKnow) {
  EXPECT_EQ(refusal(Engine::kVllm, gptq("gptq_p"), {}),
            "vLLM does not read the layout gptq_p\n  Choose --format gptq, gptq_v2, gemm.");
  EXPECT_THAT(refusal(Engine::kTransformers, gptq("gptq_p"), {}), HasSubstr("gptq_p"));
  EXPECT_EQ(refusal(Engine::kGptqModel, gptq("gptq_p"), {}), "(accepted)");
  EXPECT_THAT(refusal(Engine::kVllm, awq("gemv"), {}), HasSubstr("gemv"));
}

TEST(CheckEngine, ZeroPointsNeedTheSecondVersionOfTheLayout) {
  WantedLinear asym = linear(128, 128);
  asym.sym = false;
  for (const Engine engine : {Engine::kTransformers, Engine::kGptqModel}) {
    EXPECT_THAT(refusal(engine, gptq(), {asym}), AllOf(HasSubstr("zero points"), HasSubstr("gptq_v2")));
    EXPECT_EQ(refusal(engine, gptq("gptq_v2"), {asym}), "(accepted)");
    EXPECT_EQ(refusal(engine, awq(), {asym}), "(accepted)");
  }
}

TEST(CheckEngine, CodesOf3BitsFillWholeWordsOnlyBy32) {
  WantedLinear narrow = linear(48, 144, 16);
  for (const Engine engine : kAll) {
    narrow.bits = 4;
    EXPECT_EQ(refusal(engine, gptq(), {narrow}), "(accepted)") << engine_name(engine);
    narrow.bits = 3;
    EXPECT_THAT(refusal(engine, gptq(), {narrow}),
                AllOf(HasSubstr("in_features 144 is no multiple of 32"), HasSubstr("out_features 48")));
  }
}

TEST(CheckEngine, VllmFusesLayersThatThenNeedOneSetting) {
  std::vector<WantedLinear> linears;
  for (const char* const name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj"}) {
    linears.push_back(linear(256, 256, 64));
    linears.back().module = std::string("model.layers.0.") + name;
  }
  linears[3].bits = 8;  // alone in its layer
  EXPECT_EQ(refusal(Engine::kVllm, gptq(), linears), "(accepted)");
  linears[2].bits = 8;
  EXPECT_THAT(refusal(Engine::kVllm, gptq(), linears),
              AllOf(HasSubstr("model.layers.0.self_attn.v_proj: vLLM"), HasSubstr("q_proj as qkv_proj")));
  EXPECT_EQ(refusal(Engine::kGptqModel, gptq(), linears), "(accepted)");
  linears[2].module = "model.layers.1.self_attn.v_proj";
  EXPECT_EQ(refusal(Engine::kVllm, gptq(), linears), "(accepted)");
}

TEST(CheckEngine, Bitsandbytes) {
  const BitsAndBytesConfig plain{.load_in_4bit = true};
  EXPECT_EQ(refusal(Engine::kVllm, plain, {}), "(accepted)");
  EXPECT_EQ(refusal(Engine::kTransformers, plain, {}), "(accepted)");
  EXPECT_THAT(refusal(Engine::kGptqModel, plain, {}), HasSubstr("--for transformers"));
  const BitsAndBytesConfig wide{.load_in_4bit = true, .bnb_4bit_quant_storage = DType::kBF16};
  EXPECT_THAT(refusal(Engine::kVllm, wide, {}), HasSubstr("bnb_4bit_quant_storage"));
  EXPECT_EQ(refusal(Engine::kTransformers, wide, {}), "(accepted)");
}

std::string size_refusal(const QuantizationConfig& config, std::vector<WantedLinear> linears) {
  const Status status = check_group_size(config, linears);
  return status ? "(accepted)" : to_string(status.error());
}

TEST(CheckGroupSize, ASizeThatDividesNothingIsAMistake) {
  EXPECT_EQ(
      size_refusal(gptq(), {linear(4096, 4096, 96), linear(4096, 2048, 96)}),
      "model.layers.0.mlp.down_proj: group_size 96 does not divide in_features 4096\n"
      "  Group sizes that fit every layer: 16, 32, 64, 128, 256, 512, 1024. Or -1 for one scale per output.");
  EXPECT_EQ(size_refusal(gptq(), {linear(64, 20, 96)}),
            "model.layers.0.mlp.down_proj: group_size 96 does not divide in_features 20\n"
            "  No usual group size fits every layer: take -1, one scale per output.");
}

TEST(CheckGroupSize, OnlyGptqMayHaveAShorterLastGroup) {
  const std::vector<WantedLinear> smollm2 = {linear(576, 576), linear(576, 1536)};
  EXPECT_EQ(size_refusal(gptq(), smollm2), "(accepted)");
  EXPECT_THAT(size_refusal(awq(), smollm2), HasSubstr("group_size 128 does not divide in_features 576"));
  EXPECT_EQ(size_refusal(BitsAndBytesConfig{}, smollm2), "(accepted)");
  // Another rule's 128 does not excuse 100.
  EXPECT_THAT(size_refusal(gptq(), {linear(576, 1536), linear(576, 1536, 100)}), HasSubstr("group_size 100"));
}

TEST(FittingGroupSize, IsTheLargestUsualOneThatDividesEveryLayer) {
  const std::vector<WantedLinear> smollm2 = {linear(576, 576), linear(576, 1536)};
  EXPECT_EQ(fitting_group_size(std::nullopt, smollm2, 128), 64);
  EXPECT_EQ(fitting_group_size(Engine::kVllm, smollm2, 32), 32);
  EXPECT_EQ(fitting_group_size(Engine::kGptqModel, smollm2, -1), -1);
  const std::vector<WantedLinear> llama = {linear(4096, 4096), linear(4096, 11008)};
  EXPECT_EQ(fitting_group_size(std::nullopt, llama, 128), 128);
  EXPECT_EQ(fitting_group_size(std::nullopt, llama, 100), 64);
  const std::vector<WantedLinear> narrow = {linear(48, 48)};
  EXPECT_EQ(fitting_group_size(std::nullopt, narrow, 128), 16);
  EXPECT_EQ(fitting_group_size(Engine::kVllm, narrow, 128), std::nullopt);
}

}  // namespace
}  // namespace nibble
