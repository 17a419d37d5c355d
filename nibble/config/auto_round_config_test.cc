// The spellings of AutoRound's configuration in public checkpoints, from 2024 (release 0.3) on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/config/config_test_files.h"
#include "nibble/config/dynamic_rules.h"
#include "nibble/config/quantization_config.h"

namespace nibble {
namespace {

using testing::HasSubstr;

Expected<QuantizationConfig> read(std::string_view text) {
  return quantization_config_from_json(must_parse(text));
}

// "gptq", "gptq_v2", "awq gemm": the layout that a configuration with more keys stands for, or the error.
std::string layout(std::string_view more, std::string_view method = "auto-round") {
  const auto config = read(fmt::format(R"({{"quant_method": "{}", "bits": 4, {}}})", method, more));
  if (!config) return config.error().what;
  if (const auto* gptq = std::get_if<GPTQConfig>(&*config)) return gptq->checkpoint_format;
  if (const auto* awq = std::get_if<AwqConfig>(&*config)) return "awq " + awq->version;
  return "another class";
}

TEST(AutoRoundConfig, PackingFormatsAreLayoutsOfGptqAndAwq) {
  EXPECT_EQ(layout(R"("sym": true)"), "gptq");
  EXPECT_EQ(layout(R"("packing_format": "auto_round:auto_gptq")"), "gptq");
  EXPECT_EQ(layout(R"("packing_format": "auto-round:auto_gptq")"), "gptq");
  EXPECT_EQ(layout(R"("packing_format": "auto_round:gptq")"), "gptq");
  EXPECT_EQ(layout(R"("packing_format": "auto_gptq")"), "gptq");
  EXPECT_EQ(layout(R"("packing_format": "auto")"), "gptq");
  EXPECT_EQ(layout(R"("packing_format": "auto_round:gptqmodel", "sym": false)"), "gptq_v2");
  EXPECT_EQ(layout(R"("packing_format": "auto_round", "sym": false)"), "gptq_v2");
  EXPECT_EQ(layout(R"("packing_format": "auto_round:auto_awq", "sym": false)"), "awq gemm");
  EXPECT_EQ(layout(R"("packing_format": "auto-round:auto_awq")"), "awq gemm");
  EXPECT_EQ(layout(R"("packing_format": "auto_round:awq")"), "awq gemm");
  // A kernel, not a layout, where packing_format is there.
  EXPECT_EQ(layout(R"("packing_format": "auto_round:auto_awq", "backend": "gptq:marlin")"), "awq gemm");
}

TEST(AutoRoundConfig, FilesOf2024NameTheLayoutInBackend) {
  EXPECT_EQ(layout(R"("backend": "auto_round:exllamav2", "sym": false)", "intel/auto-round"), "gptq_v2");
  EXPECT_EQ(layout(R"("backend": "autoround:exllamav2", "sym": false)", "intel/auto-round"), "gptq_v2");
  EXPECT_EQ(layout(R"("backend": "auto_round:tritonv2", "sym": false)", "intel/auto-round"), "gptq_v2");
  EXPECT_EQ(layout(R"("backend": "auto_round:gptq:exllamav2")", "intel/auto-round"), "gptq");
  EXPECT_EQ(layout(R"("backend": "auto_round:auto_awq")", "intel/auto-round"), "awq gemm");
  EXPECT_EQ(layout(R"("backend": "auto")", "Intel/Auto-Round"), "gptq");
  EXPECT_EQ(layout(R"("sym": true)", "auto_round"), "gptq");
}

TEST(AutoRoundConfig, OtherPackingsGetASentence) {
  for (const char* packing : {"auto_round:llm_compressor", "auto_round:fp8", "auto_round:fp8_static",
                              "auto_round:mx_fp", "auto_round:nv_fp", "auto_round:fake", "mlx", "marlin"}) {
    const auto config =
        read(fmt::format(R"({{"quant_method": "auto-round", "bits": 4, "packing_format": "{}"}})", packing));
    ASSERT_FALSE(config) << packing;
    EXPECT_EQ(config.error().code, ErrorCode::kUnsupported) << packing;
    EXPECT_EQ(config.error().what,
              fmt::format("packing_format is \"{}\", but auto_gptq, gptqmodel and auto_awq "
                          "are read",
                          packing));
    EXPECT_THAT(config.error().fix, HasSubstr("auto_gptq or auto_awq"));
  }
  EXPECT_THAT(layout(R"("data_type": "mx_fp")"), HasSubstr("data_type is \"mx_fp\""));
  EXPECT_THAT(layout(R"("act_bits": 8)"), HasSubstr("act_bits is 8"));
  EXPECT_EQ(layout(R"("data_type": "int", "act_bits": 16)"), "gptq");
}

TEST(AutoRoundConfig, WrongValuesAreRefused) {
  EXPECT_THAT(read(R"({"quant_method": "auto-round"})").error().what, HasSubstr("bits is missing"));
  EXPECT_THAT(layout(R"("w_bit": 4, "group_size": 0)"), HasSubstr("group_size is 0"));
  EXPECT_THAT(layout(R"("group_size": "all")"), HasSubstr("group_size is \"all\""));
  EXPECT_THAT(layout(R"("sym": "yes")"), HasSubstr("sym is \"yes\""));
  EXPECT_THAT(layout(R"("packing_format": 4)"), HasSubstr("packing_format is 4"));
  EXPECT_THAT(layout(R"("extra_config": [])"), HasSubstr("extra_config is []"));
  EXPECT_THAT(layout(R"("extra_config": {"m": 8})"), HasSubstr("extra_config \"m\" is 8"));
  EXPECT_THAT(layout(R"("extra_config": {"m": {"bits": "8"}})"),
              HasSubstr("extra_config \"m\": bits is \"8\""));
  EXPECT_THAT(layout(R"("extra_config": {"(": {"bits": 8}})"), HasSubstr("not valid"));
  EXPECT_THAT(layout(R"("extra_config": {"m": {"bits": 12}})"), HasSubstr("bits is 12"));
  EXPECT_THAT(layout(fmt::format(R"("extra_config": {{"{}": {{"bits": 8}}}})", std::string(20'000, 'm'))),
              HasSubstr("not valid"));
  EXPECT_THAT(read(R"({"quant_method": "auto-round", "bits": 5})").error().what, HasSubstr("gptq_p"));
  EXPECT_THAT(read(R"({"quant_method": "auto-round", "bits": 2, "packing_format": "auto_round:auto_awq"})")
                  .error()
                  .what,
              HasSubstr("bits is 2"));
}

TEST(AutoRoundConfig, SingleModulesHaveSettingsOfTheirOwn) {
  const auto config = read(R"({"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": true,
    "packing_format": "auto_round:auto_gptq", "extra_config": {
      ".*k_proj.*": {"bits": 8},
      ".*v_proj.*": {"bits": 16},
      "layers\\.[01]\\.mlp": {"group_size": 32},
      "model.layers.0.mlp.down_proj": {"bits": 2, "group_size": 64, "sym": false, "act_bits": 16},
      "model.layers.1.self_attn.o_proj": {"bits": 16, "data_type": "float"}}})");
  ASSERT_TRUE(config) << to_string(config.error());
  const auto& gptq = std::get<GPTQConfig>(*config);
  EXPECT_EQ(gptq.bits, 4);
  EXPECT_EQ(gptq.group_size, 128);
  EXPECT_TRUE(gptq.sym && gptq.has_sym);
  const auto settings = [&](std::string_view module) {
    const DynamicRule* const rule = find_dynamic_rule(gptq, module).value();
    return rule == nullptr ? std::string("none") : rule->skip ? "left alone" : rule->overrides.dump();
  };
  EXPECT_EQ(settings("model.layers.0.self_attn.q_proj"), "none");
  EXPECT_EQ(settings("model.layers.0.self_attn.k_proj"), R"({"bits":8,"group_size":128,"sym":true})");
  EXPECT_EQ(settings("model.layers.1.mlp.down_proj"), R"({"bits":4,"group_size":32,"sym":true})");
  EXPECT_EQ(settings("model.layers.2.mlp.down_proj"), "none");
  // A name goes before patterns, and is no beginning of another name.
  EXPECT_EQ(settings("model.layers.0.mlp.down_proj"), R"({"bits":2,"group_size":64,"sym":false})");
  EXPECT_EQ(settings("model.layers.1.self_attn.o_proj"), "left alone");
  EXPECT_EQ(settings("model.layers.1.self_attn.v_proj"), "left alone");

  // Written anew it is a GPTQ configuration with the same rules.
  const auto again = GPTQConfig::from_json(gptq.to_json());
  ASSERT_TRUE(again) << to_string(again.error());
  for (const char* module : {"model.layers.0.self_attn.k_proj", "model.layers.0.mlp.down_proj",
                             "model.layers.1.mlp.down_proj", "model.layers.0.self_attn.q_proj",
                             "model.layers.1.self_attn.o_proj", "model.layers.1.self_attn.v_proj"}) {
    const DynamicRule* const rule = find_dynamic_rule(*again, module).value();
    const std::string found = rule == nullptr ? std::string("none")
                              : rule->skip    ? "left alone"
                                              : rule->overrides.dump();
    EXPECT_EQ(found, settings(module)) << module;
  }
}

TEST(AutoRoundConfig, AwqHasOneSettingForAllModules) {
  constexpr const char* kAwq = R"("packing_format": "auto_round:auto_awq", "sym": false, "extra_config": )";
  EXPECT_EQ(layout(std::string(kAwq) + R"({"m": {"bits": 16}, "n": {"bits": 4}})"), "awq gemm");
  const auto config = read(fmt::format(
      R"({{"quant_method": "auto-round", "bits": 4, {} {{"m": {{"bits": 16}}, ".*m.*": {{"bits": 16}}}}}})",
      kAwq));
  ASSERT_TRUE(config) << to_string(config.error());
  EXPECT_THAT(std::get<AwqConfig>(*config).modules_to_not_convert, testing::ElementsAre("m"));
  EXPECT_THAT(layout(std::string(kAwq) + R"({"m": {"group_size": 32}})"),
              HasSubstr("extra_config gives \"m\" settings of its own"));
}

}  // namespace
}  // namespace nibble
