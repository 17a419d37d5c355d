#include "nibble/checkpoint/gguf_model.h"

#include <cmath>
#include <numbers>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/float16.h"
#include "nibble/base/json.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/convert.h"
#include "nibble/checkpoint/gguf_builder.h"
#include "nibble/checkpoint/test_folder.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint32_t kF16 = 1, kQ8_0 = 8, kIQ2_XXS = 16, kBF16 = 30;

// A llama of 1 layer, hidden size 32, 2 heads of 4, 1 key head; no tokenizer.
GgufBuilder llama_metadata(std::string_view architecture = "llama") {
  GgufBuilder builder;
  const std::string prefix = std::string(architecture) + ".";
  builder.add("general.architecture", std::string(architecture));
  builder.add<uint32_t>(prefix + "embedding_length", 32);
  builder.add<uint32_t>(prefix + "feed_forward_length", 64);
  builder.add<uint32_t>(prefix + "context_length", 128);
  builder.add<uint32_t>(prefix + "block_count", 1);
  builder.add<uint32_t>(prefix + "attention.head_count", 2);
  builder.add<uint32_t>(prefix + "attention.head_count_kv", 1);
  builder.add<uint32_t>(prefix + "attention.key_length", 4);
  builder.add<uint32_t>(prefix + "attention.value_length", 4);
  builder.add<uint32_t>(prefix + "rope.dimension_count", 4);
  builder.add(prefix + "attention.layer_norm_rms_epsilon", 1e-5f);
  return builder;
}

// rows x columns, each element the number of its row.
std::vector<float> row_numbers(size_t rows, size_t columns) {
  std::vector<float> values;
  for (size_t row = 0; row < rows; ++row) values.insert(values.end(), columns, static_cast<float>(row));
  return values;
}

struct Model {
  Model(const GgufBuilder& builder) {
    path = folder.add("m.gguf", builder.build());
    files = find_model(path.string());
    checkpoint = open_checkpoint({path.string(), {}, path, {}});
  }
  std::string refusal() const { return files ? "accepted" : to_string(files.error()); }
  Json json(std::string_view name) const {
    return parse_json(files.value().read_required(name).value()).value();
  }
  std::vector<float> floats(std::string_view name) const {
    return to_floats((*checkpoint)->tensor(name).value()).value();
  }

  TestFolder folder;
  std::filesystem::path path;
  Expected<ModelFiles> files = fail(ErrorCode::kNotFound, "not opened");
  Expected<std::shared_ptr<const Checkpoint>> checkpoint = fail(ErrorCode::kNotFound, "not opened");
};

GgufBuilder with_embedding(GgufBuilder builder) {
  builder.add_floats("token_embd.weight", {32, 4}, row_numbers(4, 32));
  return builder;
}

TEST(GgufModel, ConfigHasTheNamesOfTransformers) {
  const Model model(with_embedding(llama_metadata().add("llama.rope.freq_base", 500000.0f)));
  ASSERT_EQ(model.refusal(), "accepted");
  EXPECT_EQ(model.json("config.json"), parse_json(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 128, "vocab_size": 4,
    "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "rope_scaling": null, "tie_word_embeddings": true,
    "attention_bias": false, "mlp_bias": false, "torch_dtype": "float32"})")
                                           .value());
  EXPECT_THAT(model.files->list(), ElementsAre("config.json", "generation_config.json"));
  EXPECT_FALSE(model.files->read_required("tokenizer.json"));
}

TEST(GgufModel, RowsOfQueriesAndKeysGoBackToTheHalvesOfEachHead) {
  auto builder = with_embedding(llama_metadata());
  builder.add_floats("blk.0.attn_q.weight", {32, 8}, row_numbers(8, 32));
  builder.add_floats("blk.0.attn_k.weight", {32, 4}, row_numbers(4, 32));
  builder.add_floats("blk.0.attn_v.weight", {32, 4}, row_numbers(4, 32));
  builder.add_floats("blk.0.attn_q.bias", {8}, {0, 1, 2, 3, 4, 5, 6, 7});
  const Model model(builder);
  ASSERT_TRUE(model.checkpoint) << to_string(model.checkpoint.error());
  const auto first_column = [&](std::string_view name) {
    std::vector<float> column;
    const auto values = model.floats(name);
    for (size_t i = 0; i < values.size(); i += 32) column.push_back(values[i]);
    return column;
  };
  EXPECT_THAT(first_column("model.layers.0.self_attn.q_proj.weight"), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  EXPECT_THAT(first_column("model.layers.0.self_attn.k_proj.weight"), ElementsAre(0, 2, 1, 3));
  EXPECT_THAT(first_column("model.layers.0.self_attn.v_proj.weight"), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(model.floats("model.layers.0.self_attn.q_proj.bias"), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  EXPECT_EQ(model.json("config.json")["attention_bias"], true);
  EXPECT_EQ((*model.checkpoint)->file_of("model.embed_tokens.weight"), "m.gguf");
}

TEST(GgufModel, QwenRowsStayWhereTheyAre) {
  auto builder = with_embedding(llama_metadata("qwen2"));
  builder.add_floats("blk.0.attn_k.weight", {32, 4}, row_numbers(4, 32));
  const Model model(builder);
  ASSERT_TRUE(model.checkpoint) << to_string(model.checkpoint.error());
  EXPECT_EQ(model.floats("model.layers.0.self_attn.k_proj.weight"), row_numbers(4, 32));
  EXPECT_EQ(model.json("config.json")["architectures"], Json::array({"Qwen2ForCausalLM"}));
}

TEST(GgufModel, EveryTensorHasItsName) {
  auto builder = with_embedding(llama_metadata());
  const std::vector<float> one(1);
  builder.add_floats("output.weight", {1}, one).add_floats("output_norm.weight", {1}, one);
  for (const char* name :
       {"attn_norm", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"}) {
    builder.add_floats(fmt::format("blk.0.{}.weight", name), {1}, one);
  }
  const Model model(builder);
  ASSERT_TRUE(model.checkpoint) << to_string(model.checkpoint.error());
  std::vector<std::string> names;
  for (const auto& entry : (*model.checkpoint)->tensors()) names.push_back(entry.first);
  EXPECT_THAT(
      names,
      ElementsAre("lm_head.weight", "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                  "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.gate_proj.weight",
                  "model.layers.0.mlp.up_proj.weight", "model.layers.0.post_attention_layernorm.weight",
                  "model.layers.0.self_attn.o_proj.weight", "model.layers.0.self_attn.v_proj.weight",
                  "model.norm.weight"));
  EXPECT_EQ(model.json("config.json")["tie_word_embeddings"], false);
}

TEST(GgufModel, OneTypeForTheWholeModel) {
  const auto dtype_with = [](uint32_t type, size_t bytes) {
    auto builder = llama_metadata();
    builder.add_tensor("token_embd.weight", type, {32, 1}, std::string(bytes, '\0'));
    builder.add_floats("output_norm.weight", {3}, {1, 0.1f, 3});
    const Model model(builder);
    EXPECT_EQ((*model.checkpoint)->find("model.norm.weight")->dtype,
              (*model.checkpoint)->find("model.embed_tokens.weight")->dtype);
    EXPECT_EQ((*model.checkpoint)->tensor("model.norm.weight")->dtype,
              (*model.checkpoint)->find("model.norm.weight")->dtype);
    return std::pair(model.json("config.json")["torch_dtype"].get<std::string>(),
                     model.floats("model.norm.weight")[1]);
  };
  EXPECT_EQ(dtype_with(0, 128), std::pair(std::string("float32"), 0.1f));
  EXPECT_EQ(dtype_with(kF16, 64), std::pair(std::string("float16"), 0.0999755859375f));
  EXPECT_EQ(dtype_with(kBF16, 64), std::pair(std::string("bfloat16"), 0.10009765625f));
  EXPECT_EQ(dtype_with(kQ8_0, 34), std::pair(std::string("float16"), 0.0999755859375f));
}

TEST(GgufModel, QuantizedValuesAreRoundedToHalf) {
  // 0.333251953125 * 127 = 42.322998046875, which float16 rounds to 42.3125.
  std::string block = {'\x55', '\x35'};
  block += std::string(32, '\x7F');
  auto builder = llama_metadata();
  builder.add_tensor("token_embd.weight", kQ8_0, {32, 1}, block);
  const Model model(builder);
  EXPECT_EQ(model.floats("model.embed_tokens.weight")[5], 42.3125f);
}

TEST(GgufModel, ValuesThatHalfCannotHoldAreRefused) {
  auto builder = llama_metadata();
  builder.add_tensor("token_embd.weight", kF16, {32, 1}, std::string(64, '\0'));
  builder.add_floats("output_norm.weight", {1}, {70000});
  const Model model(builder);
  const auto tensor = (*model.checkpoint)->tensor("model.norm.weight");
  ASSERT_FALSE(tensor);
  EXPECT_THAT(to_string(tensor.error()), HasSubstr("m.gguf: output_norm.weight: a value above 65504"));
}

TEST(GgufModel, WhatIsNotImplementedIsNamed) {
  EXPECT_THAT(Model(with_embedding(llama_metadata("mamba"))).refusal(), HasSubstr("architecture \"mamba\""));
  EXPECT_THAT(Model(with_embedding(llama_metadata().add<uint32_t>("llama.expert_count", 8))).refusal(),
              HasSubstr("llama.expert_count: 8"));
  EXPECT_THAT(Model(with_embedding(llama_metadata().add<std::string>("llama.rope.scaling.type", "longrope")))
                  .refusal(),
              HasSubstr("rotary scaling \"longrope\""));
  auto builder = with_embedding(llama_metadata());
  builder.add_tensor("output.weight", kIQ2_XXS, {256, 1}, std::string(66, '\0'));
  EXPECT_THAT(Model(builder).refusal(), HasSubstr("output.weight: tensors of type IQ2_XXS; F32, F16, BF16"));
  builder = with_embedding(llama_metadata());
  builder.add_floats("blk.0.ssm_a", {1}, {1});
  const Model model(builder);
  ASSERT_FALSE(model.checkpoint);
  EXPECT_THAT(to_string(model.checkpoint.error()), HasSubstr("blk.0.ssm_a: this tensor has no place"));
}

TEST(GgufModel, ContradictionsAreRefused) {
  EXPECT_THAT(Model(llama_metadata()).refusal(), HasSubstr("token_embd.weight"));
  EXPECT_THAT(
      Model(with_embedding(GgufBuilder().add<std::string>("general.architecture", "llama"))).refusal(),
      HasSubstr("llama.embedding_length: is missing"));
  EXPECT_THAT(
      Model(with_embedding(llama_metadata().add<uint32_t>("tokenizer.ggml.bos_token_id", 4))).refusal(),
      HasSubstr("tokenizer.ggml.bos_token_id: 4, but there are 4 tokens"));
  for (const char* name : {"blk.1.attn_v.weight", "blk.0.attn_q.weight", "blk.x.attn_q.weight"}) {
    auto builder = with_embedding(llama_metadata());
    builder.add_floats(name, {32, 6}, row_numbers(6, 32));
    const Model model(builder);
    ASSERT_FALSE(model.checkpoint) << name;
    EXPECT_THAT(to_string(model.checkpoint.error()), HasSubstr(name));
  }
}

TEST(GgufModel, RotaryScalingIsWrittenAsTransformersHasIt) {
  auto linear = llama_metadata().add<std::string>("llama.rope.scaling.type", "linear");
  EXPECT_EQ(Model(with_embedding(linear.add("llama.rope.scaling.factor", 4.0f)))
                .json("config.json")["rope_scaling"],
            Json({{"rope_type", "linear"}, {"factor", 4.0}}));
  auto yarn = llama_metadata().add<std::string>("llama.rope.scaling.type", "yarn");
  yarn.add("llama.rope.scaling.factor", 2.0f).add<uint32_t>("llama.rope.scaling.original_context_length", 64);
  EXPECT_EQ(Model(with_embedding(yarn)).json("config.json")["rope_scaling"],
            Json({{"rope_type", "yarn"}, {"factor", 2.0}, {"original_max_position_embeddings", 64}}));
}

// What llama.cpp's converter writes for Llama 3.1, in float32 as it does.
std::vector<float> llama31_factors(float theta, float factor, size_t head_dim) {
  std::vector<float> factors;
  for (size_t i = 0; i < head_dim; i += 2) {
    const float freq = 1.0f / std::pow(theta, static_cast<float>(i) / static_cast<float>(head_dim));
    const float wavelength = 2 * std::numbers::pi_v<float> / freq;
    if (wavelength < 8192.0f / 4) {
      factors.push_back(1);
    } else if (wavelength > 8192.0f) {
      factors.push_back(factor);
    } else {
      const float smooth = (8192 / wavelength - 1) / 3;
      factors.push_back(1 / ((1 - smooth) / factor + smooth));
    }
  }
  return factors;
}

GgufBuilder with_rope_factors(const std::vector<float>& factors) {
  GgufBuilder builder;
  builder.add<std::string>("general.architecture", "llama").add<uint32_t>("llama.embedding_length", 256);
  builder.add<uint32_t>("llama.feed_forward_length", 64).add<uint32_t>("llama.context_length", 131072);
  builder.add<uint32_t>("llama.block_count", 1).add<uint32_t>("llama.attention.head_count", 2);
  builder.add("llama.attention.layer_norm_rms_epsilon", 1e-5f).add("llama.rope.freq_base", 500000.0f);
  builder.add_floats("token_embd.weight", {256, 1}, std::vector<float>(256));
  builder.add_floats("rope_freqs.weight", {factors.size()}, factors);
  return builder;
}

TEST(GgufModel, Llama31RotaryFactorsBecomeTheirParameters) {
  for (const float factor : {8.0f, 32.0f}) {
    const Model model(with_rope_factors(llama31_factors(500000, factor, 128)));
    ASSERT_EQ(model.refusal(), "accepted");
    EXPECT_EQ(model.json("config.json")["rope_scaling"], Json({{"rope_type", "llama3"},
                                                               {"factor", factor},
                                                               {"low_freq_factor", 1.0},
                                                               {"high_freq_factor", 4.0},
                                                               {"original_max_position_embeddings", 8192}}));
    ASSERT_TRUE(model.checkpoint) << to_string(model.checkpoint.error());
    EXPECT_EQ((*model.checkpoint)->tensors().size(), 1u);
  }
  EXPECT_EQ(Model(with_rope_factors(std::vector<float>(64, 1))).json("config.json")["rope_scaling"], Json());
}

TEST(GgufModel, OtherRotaryFactorsAreRefused) {
  std::vector<float> factors = llama31_factors(500000, 8, 128);
  factors[35] *= 1.01f;
  EXPECT_THAT(Model(with_rope_factors(factors)).refusal(), HasSubstr("not those of Llama 3.1"));
  EXPECT_THAT(Model(with_rope_factors({1, 2})).refusal(), HasSubstr("not those of Llama 3.1"));
  EXPECT_THAT(Model(with_rope_factors(std::vector<float>(64, NAN))).refusal(),
              HasSubstr("not those of Llama 3.1"));
}

// --- gemma and phi3; whole models are in tests/golden/gguf_test.cc ---

Json config_of(const GgufBuilder& builder) {
  const Model model(with_embedding(builder));
  EXPECT_EQ(model.refusal(), "accepted");
  return model.json("config.json");
}

GgufBuilder with_layers(std::string_view architecture, uint32_t layers) {
  GgufBuilder builder = llama_metadata(architecture);
  builder.replace<uint32_t>(std::string(architecture) + ".block_count", layers);
  for (uint32_t layer = 0; layer < layers; ++layer) {
    builder.add_floats(fmt::format("blk.{}.attn_norm.weight", layer), {1}, {1});
  }
  return builder;
}

TEST(GgufGemma, WhatOldFilesLeaveOutHasThePublishedValues) {
  const Json gemma2 = config_of(with_layers("gemma2", 2));
  EXPECT_EQ(gemma2["hidden_activation"], "gelu_pytorch_tanh");
  EXPECT_EQ(gemma2["attn_logit_softcapping"], 50.0);
  EXPECT_EQ(gemma2["final_logit_softcapping"], 30.0);
  EXPECT_EQ(gemma2["sliding_window"], 4096);
  EXPECT_EQ(gemma2["layer_types"], Json::array({"sliding_attention", "full_attention"}));
  EXPECT_EQ(gemma2["rope_theta"], 10000.0);
  const Json gemma3 = config_of(with_layers("gemma3", 1));
  EXPECT_EQ(gemma3["model_type"], "gemma3_text");
  EXPECT_EQ(gemma3["rope_local_base_freq"], 10000.0);
  EXPECT_FALSE(gemma3.contains("final_logit_softcapping"));
  EXPECT_EQ(gemma3["sliding_window"], Json());
  EXPECT_EQ(gemma3["layer_types"], Json::array({"full_attention"}));
}

TEST(GgufGemma, TheLargestModelsScaleQueriesByTheirWidth) {
  // head_dim is 4, hidden_size / heads 16.
  EXPECT_EQ(config_of(with_layers("gemma2", 45))["query_pre_attn_scalar"], 4);
  EXPECT_EQ(config_of(with_layers("gemma2", 46))["query_pre_attn_scalar"], 16);
  EXPECT_EQ(config_of(with_layers("gemma3", 46))["query_pre_attn_scalar"], 4);
  EXPECT_EQ(config_of(with_layers("gemma3", 62))["query_pre_attn_scalar"], 16);
}

TEST(GgufGemma, TheFileMayNameThePeriodOfTheSlidingLayers) {
  auto builder = with_layers("gemma3", 4).add<uint32_t>("gemma3.attention.sliding_window", 8);
  builder.add<uint32_t>("gemma3.attention.sliding_window_pattern", 3)
      .add("gemma3.rope.freq_base_swa", 5000.0f);
  const Json config = config_of(builder);
  EXPECT_EQ(config["sliding_window"], 8);
  EXPECT_EQ(config["layer_types"],
            Json::array({"sliding_attention", "sliding_attention", "full_attention", "sliding_attention"}));
  EXPECT_EQ(config["rope_local_base_freq"], 5000.0);
}

TEST(GgufGemma, NormsAreStoredWithOneMore) {
  auto builder = with_embedding(llama_metadata("gemma2"));
  builder.add_floats("blk.0.attn_norm.weight", {2}, {1.25f, 0.5f});
  builder.add_floats("blk.0.post_attention_norm.weight", {1}, {3});
  builder.add_floats("blk.0.ffn_norm.weight", {1}, {4});
  builder.add_floats("blk.0.post_ffw_norm.weight", {1}, {5});
  builder.add_floats("output_norm.weight", {1}, {2});
  const Model model(builder);
  ASSERT_TRUE(model.checkpoint) << to_string(model.checkpoint.error());
  const std::string layer = "model.layers.0.";
  EXPECT_THAT(model.floats(layer + "input_layernorm.weight"), ElementsAre(0.25f, -0.5f));
  EXPECT_THAT(model.floats(layer + "post_attention_layernorm.weight"), ElementsAre(2));
  EXPECT_THAT(model.floats(layer + "pre_feedforward_layernorm.weight"), ElementsAre(3));
  EXPECT_THAT(model.floats(layer + "post_feedforward_layernorm.weight"), ElementsAre(4));
  EXPECT_THAT(model.floats("model.norm.weight"), ElementsAre(1));
  EXPECT_EQ(model.floats("model.embed_tokens.weight"), row_numbers(4, 32));
}

TEST(GgufGemma, AbsurdValuesAreRefused) {
  const auto refusal = [](const GgufBuilder& builder) { return Model(with_embedding(builder)).refusal(); };
  EXPECT_THAT(refusal(llama_metadata("gemma2").add<uint32_t>("gemma2.attention.sliding_window", 0)),
              HasSubstr("gemma2.attention.sliding_window: must not be 0"));
  EXPECT_THAT(refusal(llama_metadata("gemma3").add<uint32_t>("gemma3.attention.sliding_window_pattern", 0)),
              HasSubstr("gemma3.attention.sliding_window_pattern: must not be 0"));
  EXPECT_THAT(refusal(llama_metadata("gemma2").add("gemma2.attn_logit_softcapping", NAN)),
              HasSubstr("gemma2.attn_logit_softcapping: nan is not a positive number"));
  EXPECT_THAT(refusal(llama_metadata("gemma3").add("gemma3.final_logit_softcapping", -1.0f)),
              HasSubstr("gemma3.final_logit_softcapping: -1 is not a positive number"));
  EXPECT_THAT(refusal(llama_metadata("gemma3").add("gemma3.rope.freq_base_swa", 0.0f)),
              HasSubstr("gemma3.rope.freq_base_swa: 0 is not a positive number"));
  EXPECT_THAT(refusal(llama_metadata("gemma3").replace<uint32_t>("gemma3.block_count", 2000000000)),
              HasSubstr("gemma3.block_count: 2000000000 layers, but the file has 1 tensors"));
}

GgufBuilder phi3(const std::vector<float>& long_factors, const std::vector<float>& short_factors) {
  auto builder = with_embedding(llama_metadata("phi3"));
  builder.add<uint32_t>("phi3.rope.scaling.original_context_length", 64);
  builder.add_floats("rope_factors_long.weight", {long_factors.size()}, long_factors);
  builder.add_floats("rope_factors_short.weight", {short_factors.size()}, short_factors);
  return builder;
}

TEST(GgufPhi3, FactorsOfLongropeAreTensors) {
  // 128 positions, 64 of them at first: the square root of 1 + ln 2 / ln 64 is what Transformers computes.
  const float usual = std::sqrt(1 + std::log(2.0f) / std::log(64.0f));
  const auto config = [](GgufBuilder builder) {
    const Model model(builder);
    EXPECT_EQ(model.refusal(), "accepted");
    EXPECT_EQ((*model.checkpoint)->tensors().size(), 1u);
    return model.json("config.json");
  };
  const Json plain = {{"type", "longrope"}, {"short_factor", {1.0, 1.1}}, {"long_factor", {1.0, 2.5}}};
  Json scaled = plain;
  scaled["attention_factor"] = 1.5;
  EXPECT_EQ(config(phi3({1, 2.5f}, {1, 1.1f}))["rope_scaling"], plain);
  EXPECT_EQ(config(phi3({1, 2.5f}, {1, 1.1f}))["original_max_position_embeddings"], 64);
  EXPECT_EQ(config(phi3({1, 2.5f}, {1, 1.1f}).add("phi3.rope.scaling.attn_factor", usual))["rope_scaling"],
            plain);
  EXPECT_EQ(config(phi3({1, 2.5f}, {1, 1.1f}).add("phi3.rope.scaling.attn_factor", 1.5f))["rope_scaling"],
            scaled);
}

TEST(GgufPhi3, BrokenFactorsAreRefused) {
  EXPECT_THAT(
      Model(phi3({1, 2, 3}, {1, 1})).refusal(),
      HasSubstr(
          "rope_factors_long.weight: F32 of shape [3], but half of the 4 rotated elements are F32 [2]"));
  EXPECT_THAT(Model(phi3({1, 2}, {1, NAN})).refusal(),
              HasSubstr("rope_factors_short.weight: nan is not a positive number"));
  EXPECT_THAT(Model(phi3({1, 0}, {1, 1})).refusal(), HasSubstr("rope_factors_long.weight: 0 is not"));
  EXPECT_THAT(Model(phi3({1, 2}, {1, 1}).add("phi3.rope.scaling.attn_factor", NAN)).refusal(),
              HasSubstr("phi3.rope.scaling.attn_factor: nan is not a positive number"));
  EXPECT_THAT(Model(phi3({1, 2}, {1, 1}).add<std::string>("phi3.rope.scaling.type", "yarn")).refusal(),
              HasSubstr("phi3.rope.scaling.type: \"yarn\", but the file has the factors of longrope"));
  EXPECT_THAT(
      Model(phi3({1, 2}, {1, 1}).replace<uint32_t>("phi3.rope.scaling.original_context_length", 0)).refusal(),
      HasSubstr("phi3.rope.scaling.original_context_length: must not be 0"));
  auto one_list = with_embedding(llama_metadata("phi3"));
  one_list.add_floats("rope_factors_long.weight", {2}, {1, 2});
  EXPECT_THAT(Model(one_list).refusal(), HasSubstr("rope_factors_short.weight: is missing"));
}

TEST(GgufPhi3, WindowAndRotatedShareComeFromTheFile) {
  auto builder = llama_metadata("phi3").add<uint32_t>("phi3.attention.sliding_window", 2047);
  builder.replace<uint32_t>("phi3.rope.dimension_count", 2);
  const Json config = config_of(builder);
  EXPECT_EQ(config["sliding_window"], 2047);
  EXPECT_EQ(config["partial_rotary_factor"], 0.5);
  EXPECT_EQ(config["rope_scaling"], Json());
  EXPECT_EQ(config_of(llama_metadata("phi3"))["sliding_window"], Json());
  EXPECT_EQ(
      config_of(llama_metadata("phi3").add<uint32_t>("phi3.attention.sliding_window", 0))["sliding_window"],
      Json());
  EXPECT_THAT(
      Model(with_embedding(llama_metadata("qwen2").replace<uint32_t>("qwen2.rope.dimension_count", 2)))
          .refusal(),
      HasSubstr("2 of them rotated; all three must be equal"));
}

// --- tokenizers ---

constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kByte = 6;

GgufBuilder byte_level(std::string pre) {
  auto builder = with_embedding(llama_metadata());
  builder.add<std::string>("tokenizer.ggml.model", "gpt2").add("tokenizer.ggml.pre", std::move(pre));
  builder.add_list<std::string>("tokenizer.ggml.tokens", {"<s>", "a", "b", "ab"});
  builder.add_list<int32_t>("tokenizer.ggml.token_type", {kControl, kNormal, kUserDefined, kNormal});
  builder.add_list<std::string>("tokenizer.ggml.merges", {"a b"});
  builder.add<uint32_t>("tokenizer.ggml.bos_token_id", 0).add<uint32_t>("tokenizer.ggml.eos_token_id", 0);
  return builder;
}

TEST(GgufTokenizer, ByteLevelBpe) {
  const Model model(byte_level("smollm").add<std::string>("tokenizer.chat_template", "{{ messages }}"));
  ASSERT_EQ(model.refusal(), "accepted");
  const Json tokenizer = model.json("tokenizer.json");
  EXPECT_EQ(tokenizer["model"]["vocab"], Json({{"<s>", 0}, {"a", 1}, {"b", 2}, {"ab", 3}}));
  EXPECT_EQ(tokenizer["model"]["merges"], Json::array({Json::array({"a", "b"})}));
  EXPECT_EQ(tokenizer["model"]["ignore_merges"], false);
  ASSERT_EQ(tokenizer["added_tokens"].size(), 2u);
  EXPECT_EQ(tokenizer["added_tokens"][0]["content"], "<s>");
  EXPECT_EQ(tokenizer["added_tokens"][0]["special"], true);
  EXPECT_EQ(tokenizer["added_tokens"][1]["id"], 2);
  EXPECT_EQ(tokenizer["added_tokens"][1]["special"], false) << "a user-defined token";
  EXPECT_EQ(tokenizer["pre_tokenizer"]["pretokenizers"][0],
            Json({{"type", "Digits"}, {"individual_digits", true}}));
  EXPECT_EQ(tokenizer["pre_tokenizer"]["pretokenizers"][1]["type"], "ByteLevel");
  EXPECT_EQ(tokenizer["decoder"]["type"], "ByteLevel");
  EXPECT_EQ(tokenizer["post_processor"]["type"], "ByteLevel") << "no BOS";
  const Json config = model.json("tokenizer_config.json");
  EXPECT_EQ(config["bos_token"], "<s>");
  EXPECT_EQ(config["model_max_length"], 128);
  EXPECT_EQ(model.files->read_required("chat_template.jinja").value(), "{{ messages }}");
  EXPECT_EQ(model.json("generation_config.json"), Json({{"bos_token_id", 0}, {"eos_token_id", 0}}));
}

TEST(GgufTokenizer, PreTokenizersDiffer) {
  const Json llama = Model(byte_level("llama-bpe")).json("tokenizer.json");
  EXPECT_EQ(llama["model"]["ignore_merges"], true);
  EXPECT_THAT(llama["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"].get<std::string>(),
              HasSubstr("\\p{N}{1,3}"));
  EXPECT_EQ(llama["post_processor"]["processors"][1]["single"][0]["SpecialToken"]["id"], "<s>")
      << "BOS by default";
  const Json qwen = Model(byte_level("qwen2")).json("tokenizer.json");
  EXPECT_EQ(qwen["normalizer"], Json({{"type", "NFC"}}));
  EXPECT_EQ(Model(byte_level("gpt-2")).json("tokenizer.json")["pre_tokenizer"]["use_regex"], true);
  const Json gpt4o = Model(byte_level("gpt-4o")).json("tokenizer.json");
  const auto original = read_text_file(test::data_folder() / "tokenizers/gpt-4o-style/tokenizer.json");
  EXPECT_EQ(gpt4o["pre_tokenizer"], parse_json(original.value()).value()["pre_tokenizer"]);
  EXPECT_EQ(gpt4o["model"]["ignore_merges"], false);
  const Json dbrx = Model(byte_level("dbrx")).json("tokenizer.json");
  EXPECT_EQ(dbrx["pre_tokenizer"], llama["pre_tokenizer"]);
  EXPECT_EQ(dbrx["model"]["ignore_merges"], false);
  EXPECT_THAT(Model(byte_level("new-kind")).refusal(),
              HasSubstr("pre-tokenizer \"new-kind\"; known are default"));
}

TEST(GgufTokenizer, EndOfTurnEndsGenerationToo) {
  const Model model(byte_level("gpt-2").add<uint32_t>("tokenizer.ggml.eot_token_id", 3));
  EXPECT_EQ(model.json("generation_config.json")["eos_token_id"], Json::array({0, 3}));
  EXPECT_EQ(model.json("config.json")["eos_token_id"], 0);
}

GgufBuilder sentencepiece(const std::vector<std::string>& tokens, const std::vector<float>& scores,
                          const std::vector<int32_t>& types) {
  auto builder = llama_metadata();
  builder.add_floats("token_embd.weight", {32, tokens.size()}, row_numbers(tokens.size(), 32));
  builder.add<std::string>("tokenizer.ggml.model", "llama").add_list("tokenizer.ggml.tokens", tokens);
  builder.add_list("tokenizer.ggml.scores", scores).add_list("tokenizer.ggml.token_type", types);
  builder.add<uint32_t>("tokenizer.ggml.bos_token_id", 1).add<uint32_t>("tokenizer.ggml.unknown_token_id", 0);
  return builder;
}

TEST(GgufTokenizer, SentencePieceMergesComeFromScores) {
  const Model model(sentencepiece({"<unk>", "<s>", "<0x0A>", "ab", "abc", "bc", "a", "b", "c", "\u2581"},
                                  {0, 0, 0, -1, -2, -3, -4, -5, -6, -7},
                                  {kUnknown, kControl, kByte, 1, 1, 1, 1, 1, 1, 1}));
  ASSERT_EQ(model.refusal(), "accepted");
  const Json tokenizer = model.json("tokenizer.json");
  const auto pair = [](const char* left, const char* right) { return Json::array({left, right}); };
  // ab, then abc: with the longer left part first, then bc.
  EXPECT_EQ(tokenizer["model"]["merges"],
            Json::array({pair("a", "b"), pair("ab", "c"), pair("a", "bc"), pair("b", "c")}));
  EXPECT_EQ(tokenizer["model"]["byte_fallback"], true);
  EXPECT_EQ(tokenizer["model"]["fuse_unk"], true);
  EXPECT_EQ(tokenizer["model"]["unk_token"], "<unk>");
  EXPECT_EQ(tokenizer["pre_tokenizer"], Json());
  EXPECT_EQ(tokenizer["normalizer"]["normalizers"][0], Json({{"type", "Prepend"}, {"prepend", "\u2581"}}));
  EXPECT_EQ(tokenizer["decoder"]["decoders"].size(), 4u);
  EXPECT_EQ(tokenizer["post_processor"]["single"],
            parse_json(
                R"([{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}])")
                .value());
  EXPECT_EQ(tokenizer["post_processor"]["special_tokens"],
            parse_json(R"({"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}})").value());
  EXPECT_EQ(tokenizer["added_tokens"].size(), 2u);
}

TEST(GgufTokenizer, NoPrefixSpaceWhereTheFileSaysSo) {
  const Model model(sentencepiece({"<unk>", "<s>"}, {0, 0}, {kUnknown, kControl})
                        .add("tokenizer.ggml.add_space_prefix", false));
  EXPECT_EQ(model.json("tokenizer.json")["normalizer"]["normalizers"].size(), 1u);
  EXPECT_EQ(model.json("tokenizer.json")["decoder"]["decoders"].size(), 3u);
}

// The tokenizer of an architecture whose embedding has a row for each token.
GgufBuilder sentencepiece_of(const std::string& architecture, const std::vector<std::string>& tokens,
                             const std::vector<int32_t>& types) {
  auto builder = llama_metadata(architecture);
  builder.add_floats("token_embd.weight", {32, tokens.size()}, row_numbers(tokens.size(), 32));
  builder.add<std::string>("tokenizer.ggml.model", "llama").add_list("tokenizer.ggml.tokens", tokens);
  builder.add_list("tokenizer.ggml.scores", std::vector<float>(tokens.size(), -1000.0f));
  builder.add_list("tokenizer.ggml.token_type", types);
  builder.add<uint32_t>("tokenizer.ggml.eos_token_id", 1);
  return builder;
}

TEST(GgufTokenizer, GemmasSpacesAndTabAreRestored) {
  const std::vector<std::string> tokens = {"<unk>",  "<eos>", "<0x09>",  "  ",
                                           "\u2581", "a",     "\u2581a", "<end_of_turn>"};
  const std::vector<int32_t> types = {kUnknown, kControl, kByte, kUserDefined, 1, 1, 1, kControl};
  const Model model(sentencepiece_of("gemma2", tokens, types));
  ASSERT_EQ(model.refusal(), "accepted");
  const Json tokenizer = model.json("tokenizer.json");
  EXPECT_EQ(tokenizer["model"]["vocab"]["\t"], 2);
  EXPECT_EQ(tokenizer["model"]["vocab"]["\u2581\u2581"], 3);
  EXPECT_EQ(tokenizer["added_tokens"][2]["content"], "\u2581\u2581");
  EXPECT_EQ(tokenizer["model"]["merges"],
            Json::array({Json::array({"\u2581", "\u2581"}), Json::array({"\u2581", "a"})}))
      << "user-defined tokens first";
  // The end of a turn is known by its text.
  EXPECT_EQ(model.json("generation_config.json")["eos_token_id"], Json::array({1, 7}));
  const Json llama = Model(sentencepiece_of("llama", tokens, types)).json("tokenizer.json");
  EXPECT_EQ(llama["model"]["vocab"]["<0x09>"], 2);
}

TEST(GgufTokenizer, Phi3TokensTakeTheWhiteSpaceBehindThem) {
  const Model model(sentencepiece_of("phi3", {"<unk>", "<|endoftext|>", "<s>", "</s>", "<|end|>", "a"},
                                     {kUnknown, kControl, kControl, kUserDefined, kControl, 1}));
  ASSERT_EQ(model.refusal(), "accepted");
  std::vector<bool> strips;
  const Json tokenizer = model.json("tokenizer.json");
  for (const Json& token : tokenizer["added_tokens"]) strips.push_back(token["rstrip"]);
  EXPECT_THAT(strips, ElementsAre(false, false, false, true, true));
  EXPECT_EQ(model.json("generation_config.json")["eos_token_id"], Json::array({1, 4}));
}

TEST(GgufTokenizer, BrokenVocabulariesAreRefused) {
  const std::vector<int32_t> types = {1, 1};
  EXPECT_THAT(Model(sentencepiece({"a", "a"}, {0, 0}, types)).refusal(),
              HasSubstr("tokens 0 and 1 are both \"a\""));
  EXPECT_THAT(Model(sentencepiece({"a", "\xFF"}, {0, 0}, types)).refusal(), HasSubstr("valid UTF-8"));
  EXPECT_THAT(Model(sentencepiece({"a", "b"}, {0}, types)).refusal(), HasSubstr("1 elements for 2 tokens"));
  EXPECT_THAT(Model(sentencepiece({"a", "b"}, {0, NAN}, types)).refusal(), HasSubstr("NaN"));
  EXPECT_THAT(Model(sentencepiece({"a", std::string(5000, 'b')}, {0, 0}, types)).refusal(),
              HasSubstr("5000 bytes"));
  EXPECT_THAT(Model(sentencepiece({"a"}, {0}, {1})).refusal(), HasSubstr("1, but there are 1 tokens"));
  for (const char* merge : {"ab", "", " b", "a "}) {
    auto broken = with_embedding(llama_metadata());
    broken.add<std::string>("tokenizer.ggml.model", "gpt2").add<std::string>("tokenizer.ggml.pre", "gpt-2");
    broken.add_list<std::string>("tokenizer.ggml.tokens", {"a", "b"});
    broken.add_list<std::string>("tokenizer.ggml.merges", {merge});
    EXPECT_THAT(Model(broken).refusal(), HasSubstr("not two parts")) << merge;
  }
  EXPECT_THAT(
      Model(with_embedding(llama_metadata().add<std::string>("tokenizer.ggml.model", "bert"))).refusal(),
      HasSubstr("tokenizer \"bert\""));
}

// --- conversion ---

TEST(WriteModelFolder, AGgufFileBecomesAFolder) {
  const Model model(byte_level("gpt-2"));
  const TestFolder folder;
  const Status status = write_model_folder(*model.files, **model.checkpoint, folder / "out", 100);
  ASSERT_TRUE(status) << to_string(status.error());
  const auto files = find_model((folder / "out").string());
  ASSERT_TRUE(files);
  EXPECT_THAT(files->list(), ElementsAre("config.json", "generation_config.json", "model.safetensors",
                                         "tokenizer.json", "tokenizer_config.json"));
  EXPECT_EQ(files->read_required("tokenizer.json").value(),
            model.files->read_required("tokenizer.json").value());
  const auto checkpoint = open_checkpoint(*files);
  ASSERT_TRUE(checkpoint) << to_string(checkpoint.error());
  EXPECT_EQ(to_floats((*checkpoint)->tensor("model.embed_tokens.weight").value()).value(),
            row_numbers(4, 32));
}

TEST(WriteModelFolder, AFolderIsCopiedWithoutItsOldWeights) {
  const TestFolder folder;
  for (const char* name : {"config.json", "tokenizer.model", "special_tokens_map.json", "chat_template.jinja",
                           "pytorch_model.bin", "pytorch_model.bin.index.json", ".gitattributes",
                           "x/deep.json", "additional_chat_templates/tool_use.jinja"}) {
    folder.add(std::string("in/") + name, std::string("of ") + name);
  }
  const auto files = find_model((folder / "in").string()).value();
  const Model model(with_embedding(llama_metadata()));
  const Status status = write_model_folder(files, **model.checkpoint, folder / "out", 1 << 20);
  ASSERT_TRUE(status) << to_string(status.error());
  const auto written = find_model((folder / "out").string()).value();
  EXPECT_THAT(written.list(), ElementsAre("chat_template.jinja", "config.json", "model.safetensors",
                                          "special_tokens_map.json", "tokenizer.model"));
  EXPECT_EQ(written.read_required("tokenizer.model").value(), "of tokenizer.model");
  EXPECT_THAT(written.list_below("additional_chat_templates"),
              ElementsAre("additional_chat_templates/tool_use.jinja"));
  EXPECT_FALSE(write_model_folder(files, **model.checkpoint, folder / "in", 1 << 20)) << "onto itself";
}

}  // namespace
}  // namespace nibble
