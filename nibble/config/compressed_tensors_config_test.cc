#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/config/quantization_config.h"

namespace nibble {
namespace {

using testing::HasSubstr;

// As llm-compressor writes it.
Json written() {
  return parse_json(R"({
    "config_groups": {"group_0": {
      "input_activations": null, "output_activations": null, "targets": ["Linear"],
      "weights": {"actorder": null, "block_structure": null, "dynamic": false, "group_size": 128, "num_bits": 4,
                  "observer": "minmax", "observer_kwargs": {}, "strategy": "group", "symmetric": true, "type": "int"}}},
    "format": "pack-quantized", "global_compression_ratio": 1.9, "ignore": ["lm_head"], "kv_cache_scheme": null,
    "quant_method": "compressed-tensors", "quantization_status": "compressed"})")
      .value();
}

Expected<QuantizationConfig> with(const char* pointer, const Json& value) {
  Json json = written();
  json[Json::json_pointer(pointer)] = value;
  return quantization_config_from_json(json);
}

std::string error_with(const char* pointer, const Json& value, ErrorCode code = ErrorCode::kUnsupported) {
  const auto config = with(pointer, value);
  if (config) return "no error";
  EXPECT_EQ(config.error().code, code) << to_string(config.error());
  return config.error().what;
}

constexpr const char* kWeights = "/config_groups/group_0/weights/";

std::string weights_key(const char* key) { return std::string(kWeights) + key; }

TEST(CompressedTensorsConfig, ReadsWhatLlmCompressorWrites) {
  const auto config = quantization_config_from_json(written());
  ASSERT_TRUE(config) << to_string(config.error());
  EXPECT_EQ(quant_method(*config), "compressed-tensors");
  const auto& read = std::get<CompressedTensorsConfig>(*config);
  ASSERT_EQ(read.groups.size(), 1u);
  EXPECT_EQ(read.groups.front(), (CompressedTensorsGroup{.name = "group_0"}));
  EXPECT_EQ(read.ignore, std::vector<std::string>{"lm_head"});
  EXPECT_EQ(to_json(*config), written());
}

TEST(CompressedTensorsConfig, WhatIsWrittenIsReadBack) {
  CompressedTensorsConfig config;
  config.groups = {
      {.name = "group_0", .targets = {"model.layers.0.mlp.up_proj"}, .bits = 8, .group_size = -1},
      {.name = "group_1", .targets = {"re:.*down_proj$"}, .sym = false, .actorder = "group"}};
  config.ignore = {"lm_head"};
  const auto read = CompressedTensorsConfig::from_json(config.to_json());
  ASSERT_TRUE(read) << to_string(read.error());
  EXPECT_EQ(read->groups, config.groups);
  EXPECT_EQ(read->ignore, config.ignore);
}

TEST(CompressedTensorsConfig, ChannelsAreGroupsOfAllInputs) {
  const auto channel = with(weights_key("strategy").c_str(), "channel");
  ASSERT_TRUE(channel);
  EXPECT_EQ(std::get<CompressedTensorsConfig>(*channel).groups.front().group_size, -1);
  EXPECT_THAT(error_with(weights_key("strategy").c_str(), "tensor"), HasSubstr("\"tensor\""));
  EXPECT_THAT(error_with(weights_key("group_size").c_str(), nullptr, ErrorCode::kInvalidArgument),
              HasSubstr("group_size is -1"));
}

TEST(CompressedTensorsConfig, WhatIsNotReadIsNamed) {
  EXPECT_THAT(error_with("/format", "nvfp4-pack-quantized"), HasSubstr("nvfp4-pack-quantized"));
  EXPECT_THAT(error_with("/config_groups/group_0/format", "float-quantized"), HasSubstr("float-quantized"));
  EXPECT_THAT(error_with(weights_key("num_bits").c_str(), 3), HasSubstr("num_bits is 3"));
  EXPECT_THAT(error_with(weights_key("type").c_str(), "float"), HasSubstr("\"float\""));
  EXPECT_THAT(error_with("/config_groups/group_0/input_activations", {{"num_bits", 8}}),
              HasSubstr("input_activations"));
  EXPECT_THAT(error_with("/sparsity_config", {{"format", "sparse-24-bitmask"}}),
              HasSubstr("sparse-24-bitmask"));
  EXPECT_THAT(error_with("/transform_config", {{"config_groups", {{"u", 1}}}}),
              HasSubstr("transform_config"));
  EXPECT_THAT(error_with(weights_key("actorder").c_str(), "sideways", ErrorCode::kInvalidArgument),
              HasSubstr("sideways"));
  EXPECT_THAT(error_with("/config_groups", 7, ErrorCode::kInvalidArgument), HasSubstr("config_groups"));
  EXPECT_THAT(error_with("/config_groups/group_0", 7, ErrorCode::kInvalidArgument), HasSubstr("group_0"));
}

TEST(CompressedTensorsConfig, NamesAndPatternsComeBeforeClasses) {
  CompressedTensorsConfig config;
  config.groups = {{.name = "all", .targets = {"Linear"}},
                   {.name = "one", .targets = {"lm_head"}},
                   {.name = "some", .targets = {R"(re:.*\.mlp\..*)"}}};
  EXPECT_EQ((*find_group(config, "lm_head"))->name, "one");
  EXPECT_EQ((*find_group(config, "model.layers.0.mlp.up_proj"))->name, "some");
  EXPECT_EQ((*find_group(config, "model.layers.0.self_attn.q_proj"))->name, "all");
  config.groups.erase(config.groups.begin());
  EXPECT_EQ(find_group(config, "model.layers.0.self_attn.q_proj").error().code, ErrorCode::kDataLoss);
  config.groups.front().targets = {"re:a("};
  EXPECT_EQ(find_group(config, "lm_head").error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
