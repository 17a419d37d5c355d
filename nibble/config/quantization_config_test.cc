#include "nibble/config/quantization_config.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/log.h"
#include "nibble/config/config_test_files.h"
#include "nibble/config/dynamic_rules.h"

namespace nibble {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

template <class Config>
Config parse(std::string_view text) {
  auto config = Config::from_json(must_parse(text));
  EXPECT_TRUE(config.has_value()) << to_string(config.error());
  return config.value_or(Config{});
}

template <class Config>
std::string fault(std::string_view text) {
  const auto config = Config::from_json(must_parse(text));
  return config ? "accepted" : config.error().what;
}

std::string gptq_fault(std::string_view more) {
  return fault<GPTQConfig>(fmt::format(R"({{"bits": 4, {}}})", more));
}

// The quantization_config of a folder of tests/data, and its quantize_config.json if it has one.
Expected<ResolvedQuantization> resolve(const std::string& folder) {
  NIBBLE_TRY(const Json config, read_test_json(folder + "/config.json"));
  std::optional<Json> own;
  if (has_test_file(folder + "/quantize_config.json")) {
    NIBBLE_TRY(own, read_test_json(folder + "/quantize_config.json"));
  }
  return resolve_quantization(config, own, std::nullopt);
}

template <class Config>
Config load(const std::string& model) {
  const auto resolved = resolve("models/" + model);
  EXPECT_TRUE(resolved.has_value()) << model << ": " << to_string(resolved.error());
  const Config* config = resolved ? std::get_if<Config>(&*resolved->config) : nullptr;
  EXPECT_NE(config, nullptr) << model;
  return config != nullptr ? *config : Config{};
}

// ------------------------------------------------------------------------------------------- GPTQ

TEST(GPTQConfig, DefaultsAreThoseOfTransformers) {
  const auto config = parse<GPTQConfig>(R"({"bits": 4})");
  EXPECT_EQ(config.group_size, 128);
  EXPECT_FALSE(config.desc_act);
  EXPECT_TRUE(config.sym);
  EXPECT_FALSE(config.has_sym);
  EXPECT_TRUE(config.true_sequential);
  EXPECT_EQ(config.damp_percent, 0.1);
  EXPECT_TRUE(config.act_group_aware);
  EXPECT_EQ(config.checkpoint_format, "gptq");
}

TEST(GPTQConfig, FilesOfGptqModelAreRead) {
  const auto plain = load<GPTQConfig>("gptq-4b-g128");
  EXPECT_EQ(plain.bits, 4);
  EXPECT_EQ(plain.group_size, 128);
  EXPECT_TRUE(plain.sym);
  EXPECT_TRUE(plain.has_sym);
  EXPECT_EQ(plain.damp_percent, 0.05);  // lifted from meta
  EXPECT_FALSE(plain.act_group_aware);
  EXPECT_THAT(plain.quantizer, ElementsAre("gptqmodel:7.7.0"));

  EXPECT_EQ(load<GPTQConfig>("gptq-4b-g-1").group_size, -1);
  EXPECT_TRUE(load<GPTQConfig>("gptq-4b-g128-desc_act").desc_act);
  EXPECT_EQ(load<GPTQConfig>("gptq-5b-g64-planar").checkpoint_format, "gptq_p");
  const auto asym = load<GPTQConfig>("gptq-2b-g32-asym-v2");
  EXPECT_EQ(asym.bits, 2);
  EXPECT_FALSE(asym.sym);
  EXPECT_EQ(asym.checkpoint_format, "gptq_v2");
  const auto head = load<GPTQConfig>("gptq-4b-lm_head");
  EXPECT_TRUE(head.lm_head);
  EXPECT_EQ(find_dynamic_rule(head, "lm_head").value()->overrides["bits"], 8);
}

TEST(GPTQConfig, OldNamesAreUnderstood) {
  const auto config =
      parse<GPTQConfig>(R"({"W_BIT": 3, "q_group_size": 64, "zero_point": true, "version": "GPTQ_V2",
    "method": "gptq"})");
  EXPECT_EQ(config.bits, 3);
  EXPECT_EQ(config.group_size, 64);
  EXPECT_FALSE(config.sym);
  EXPECT_TRUE(config.has_sym);
  EXPECT_EQ(config.checkpoint_format, "gptq_v2");
  EXPECT_EQ(parse<GPTQConfig>(R"({"wbits": 8})").bits, 8);
}

TEST(GPTQConfig, NamesThatContradictEachOtherAreRefused) {
  EXPECT_THAT(gptq_fault(R"("w_bit": 3)"), HasSubstr("bits is 4, but w_bit is 3"));
  EXPECT_THAT(gptq_fault(R"("format": "gptq_v2", "checkpoint_format": "gptq")"), HasSubstr("gptq_v2"));
  EXPECT_THAT(gptq_fault(R"("sym": true, "zero_point": true)"), HasSubstr("zero_point is true"));
  EXPECT_THAT(gptq_fault(R"("BITS": 3)"), HasSubstr("twice"));
  EXPECT_THAT(gptq_fault(R"("desc_act": true, "act_group_aware": true)"), HasSubstr("act_group_aware"));
}

TEST(GPTQConfig, ValuesOutOfRangeAreRefused) {
  EXPECT_THAT(fault<GPTQConfig>("{}"), HasSubstr("bits is missing"));
  EXPECT_THAT(fault<GPTQConfig>(R"({"bits": 1})"), HasSubstr("bits is 1"));
  EXPECT_THAT(fault<GPTQConfig>(R"({"bits": 9})"), HasSubstr("bits is 9"));
  EXPECT_THAT(fault<GPTQConfig>(R"({"bits": 4.0})"), HasSubstr("bits is 4.0"));
  EXPECT_THAT(fault<GPTQConfig>(R"({"bits": true})"), HasSubstr("bits is true"));
  EXPECT_THAT(gptq_fault(R"("group_size": 0)"), HasSubstr("group_size is 0"));
  EXPECT_THAT(gptq_fault(R"("group_size": -2)"), HasSubstr("group_size is -2"));
  EXPECT_THAT(gptq_fault(R"("group_size": 4294967296)"), HasSubstr("group_size is 4294967296"));
  EXPECT_THAT(gptq_fault(R"("damp_percent": 0)"), HasSubstr("damp_percent is 0"));
  EXPECT_THAT(gptq_fault(R"("damp_percent": 1.0)"), HasSubstr("damp_percent is 1"));
  EXPECT_THAT(gptq_fault(R"("desc_act": "yes")"), HasSubstr("desc_act is \"yes\""));
  EXPECT_THAT(gptq_fault(R"("checkpoint_format": "gptq_v9")"), HasSubstr("one of gptq, gptq_v2, gptq_p"));
  EXPECT_THAT(fault<GPTQConfig>(R"({"bits": 5})"), HasSubstr("gptq_p"));
  EXPECT_THAT(gptq_fault(R"("dataset": "ptb")"), HasSubstr("dataset is \"ptb\""));
  EXPECT_EQ(gptq_fault(R"("dataset": ["some text"])"), "accepted");
  EXPECT_THAT(gptq_fault(R"("batch_size": 2)"), HasSubstr("pad_token_id"));
  EXPECT_THAT(gptq_fault(R"("exllama_config": {})"), HasSubstr("exllama_config"));
  EXPECT_THAT(gptq_fault(R"("exllama_config": {"version": 3})"), HasSubstr("must be 1 or 2"));
  EXPECT_THAT(gptq_fault(R"("modules_in_block_to_quantize": "all")"), HasSubstr("list of strings"));
}

TEST(GPTQConfig, AllFaultsAreReportedTogether) {
  const std::string what = fault<GPTQConfig>(R"({"bits": 1, "group_size": 0, "checkpoint_format": "x"})");
  EXPECT_THAT(what, HasSubstr("bits is 1"));
  EXPECT_THAT(what, HasSubstr("group_size is 0"));
  EXPECT_THAT(what, HasSubstr("checkpoint_format is \"x\""));
}

TEST(GPTQConfig, LayoutsOfOneGpuKernelAreUnsupported) {
  for (const char* text :
       {R"({"bits": 4, "checkpoint_format": "marlin"})", R"({"bits": 4, "is_marlin_format": true})",
        R"({"bits": 4, "format": "bitblas"})", R"({"bits": 4, "pack_dtype": "int16"})"}) {
    const auto config = GPTQConfig::from_json(must_parse(text));
    ASSERT_FALSE(config.has_value()) << text;
    EXPECT_EQ(config.error().code, ErrorCode::kUnsupported) << text;
    EXPECT_FALSE(config.error().fix.empty()) << text;
  }
}

TEST(GPTQConfig, NestedModuleListsAreFlattened) {
  const auto config =
      parse<GPTQConfig>(R"({"bits": 4, "modules_in_block_to_quantize": [["a", "b"], ["c"]]})");
  EXPECT_THAT(config.modules_in_block_to_quantize, ElementsAre("a", "b", "c"));
  EXPECT_EQ(config.to_json()["modules_in_block_to_quantize"], must_parse(R"([["a", "b"], ["c"]])"));
}

TEST(GPTQConfig, ValidateChecksWhatTheCallerSets) {
  GPTQConfig config;
  EXPECT_TRUE(config.validate().has_value());
  config.desc_act = true;  // act_group_aware is on by default and gives way
  EXPECT_TRUE(config.validate().has_value());
  config.bits = 0;
  config.damp_percent = std::numeric_limits<double>::quiet_NaN();
  config.dynamic = {{.pattern = "("}};
  const Status status = config.validate();
  ASSERT_FALSE(status.has_value());
  EXPECT_THAT(status.error().what, HasSubstr("bits is 0"));
  EXPECT_THAT(status.error().what, HasSubstr("damp_percent"));
  EXPECT_THAT(status.error().what, HasSubstr("\"(\""));
}

TEST(GPTQConfig, NewConfigurationHasTheKeysOfGptqModel) {
  GPTQConfig config;
  config.damp_percent = 0.05;
  config.quantizer = {"nibble:0.1.0"};
  config.meta = {{"mse", 2.4}, {"nibble", {{"effort", "best"}}}};
  config.dynamic = {{.pattern = "a", .overrides = {{"bits", 8}}}, {.pattern = "b", .skip = true}};
  const Json json = config.to_json();
  EXPECT_EQ(json, must_parse(R"({"bits": 4, "group_size": 128, "desc_act": false, "lm_head": false,
    "quant_method": "gptq", "format": "gptq", "checkpoint_format": "gptq", "pack_dtype": "int32",
    "meta": {"damp_percent": 0.05, "static_groups": false, "true_sequential": true, "act_group_aware": true,
    "quantizer": ["nibble:0.1.0"], "mse": 2.4, "nibble": {"effort": "best"}}, "sym": true,
    "dynamic": {"-:b": {}, "+:a": {"bits": 8}}})"));  // GPTQModel takes the first that matches

  // No key that GPTQModel itself would not write, and what is read back says the same.
  const Json theirs = read_test_json("models/gptq-4b-dynamic/config.json").value()["quantization_config"];
  for (const auto& [key, value] : json.items()) EXPECT_TRUE(theirs.contains(key)) << key;
  const auto again = GPTQConfig::from_json(json);
  ASSERT_TRUE(again) << to_string(again.error());
  EXPECT_EQ(again->damp_percent, 0.05);
  EXPECT_EQ(again->quantizer, config.quantizer);
  EXPECT_EQ(again->to_json(), json);
}

// GPTQModel refuses a file that says both.
TEST(GPTQConfig, DescActIsNeverWrittenTogetherWithActGroupAware) {
  GPTQConfig config;
  config.desc_act = true;
  EXPECT_EQ(config.to_json()["meta"]["act_group_aware"], false);
  EXPECT_TRUE(GPTQConfig::from_json(config.to_json()));
}

// ---------------------------------------------------------------------------------------- dynamic

GPTQConfig with_dynamic(std::string_view dynamic) {
  return parse<GPTQConfig>(fmt::format(R"({{"bits": 4, "dynamic": {}}})", dynamic));
}

std::string rule_of(const GPTQConfig& config, std::string_view module) {
  const auto rule = find_dynamic_rule(config, module);
  if (!rule) return rule.error().what;
  return *rule == nullptr ? "none" : (*rule)->pattern;
}

TEST(DynamicRules, NegativeRulesAreTriedFirst) {
  const GPTQConfig config = with_dynamic(R"({"a.*": {"bits": 8}, "-:a\\.b": {}})");
  ASSERT_EQ(config.dynamic.size(), 2u);
  EXPECT_TRUE(config.dynamic[0].skip);
  EXPECT_EQ(rule_of(config, "a.b"), "a\\.b");
  EXPECT_EQ(rule_of(config, "a.c"), "a.*");
}

TEST(DynamicRules, FirstOfSeveralMatchesWins) {
  const GPTQConfig config = with_dynamic(R"({"+:x": {"bits": 2}, "x.y": {"bits": 8}})");
  EXPECT_EQ(rule_of(config, "x.y"), "x");
}

TEST(DynamicRules, PatternsAreAnchoredAtTheStartOnly) {
  const GPTQConfig config = with_dynamic(R"({"layers\\.1": {"bits": 8}})");
  EXPECT_EQ(rule_of(config, "layers.1"), "layers\\.1");
  EXPECT_EQ(rule_of(config, "layers.10.mlp"), "layers\\.1");
  EXPECT_EQ(rule_of(config, "model.layers.1"), "none");
}

TEST(DynamicRules, FixtureRulesApply) {
  const auto config = load<GPTQConfig>("gptq-4b-dynamic");
  EXPECT_TRUE(find_dynamic_rule(config, "model.layers.0.self_attn.k_proj").value()->skip);
  EXPECT_EQ(find_dynamic_rule(config, "model.layers.1.mlp.down_proj").value()->overrides["group_size"], 128);
  EXPECT_EQ(find_dynamic_rule(config, "model.layers.1.self_attn.k_proj").value(), nullptr);
}

TEST(DynamicRules, InvalidPatternsAndValuesAreShown) {
  EXPECT_THAT(gptq_fault(R"("dynamic": {"+:(unclosed": {}})"), HasSubstr("\"(unclosed\""));
  EXPECT_THAT(gptq_fault(R"("dynamic": {"a": {"bits": 1}})"), HasSubstr("bits is 1"));
  EXPECT_THAT(gptq_fault(R"("dynamic": {"a": {"group_size": 0}})"), HasSubstr("group_size is 0"));
  EXPECT_THAT(gptq_fault(R"("dynamic": {"a": 8})"), HasSubstr("must be an object"));
  EXPECT_THAT(gptq_fault(R"("dynamic": [])"), HasSubstr("dynamic is []"));
  EXPECT_THAT(gptq_fault(fmt::format(R"("dynamic": {{"{}": {{}}}})", std::string(20000, 'a'))),
              HasSubstr("not valid"));
}

std::string parse_refusal(std::string_view text) {
  const auto rules = parse_dynamic(text);
  if (rules) return "(parsed)";
  EXPECT_EQ(rules.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(rules.error().fix, HasSubstr("-:PATTERN"));
  return to_string(rules.error());
}

TEST(ParseDynamic, RulesOfTheCommandLine) {
  const auto rules = parse_dynamic(R"({"+:.*q_proj": {"bits": 8, "group_size": 32}, "-:.*down_proj": {},
    ".*k_proj": {"sym": false, "desc_act": true, "group_size": -1}})");
  ASSERT_TRUE(rules) << to_string(rules.error());
  ASSERT_EQ(rules->size(), 3u);
  EXPECT_EQ(rules->at(0), (DynamicRule{.pattern = ".*down_proj", .skip = true}));
  EXPECT_EQ(rules->at(1).pattern, ".*q_proj");
  EXPECT_EQ(rules->at(1).overrides["bits"], 8);
  EXPECT_EQ(rules->at(2).overrides["group_size"], -1);
  EXPECT_TRUE(parse_dynamic("{}")->empty());
}

TEST(ParseDynamic, WhatIsWrongNamesTheRule) {
  EXPECT_THAT(parse_refusal("{\"a\": "), HasSubstr("dynamic: "));
  EXPECT_THAT(parse_refusal(""), HasSubstr("dynamic: "));
  EXPECT_THAT(parse_refusal("[]"), HasSubstr("dynamic is []"));
  EXPECT_THAT(parse_refusal(R"({"+:a(": {"bits": 8}})"),
              HasSubstr("the pattern \"a(\" of dynamic is not valid"));
  EXPECT_THAT(parse_refusal(R"({"+:a": {"bits": 9}})"), HasSubstr("dynamic \"a\": bits is 9"));
  EXPECT_THAT(parse_refusal(R"({"+:a": {"bits": "8"}})"), HasSubstr("dynamic \"a\": bits is \"8\""));
  EXPECT_THAT(parse_refusal(R"({"+:a": {"group_size": 0}})"), HasSubstr("dynamic \"a\": group_size is 0"));
  EXPECT_THAT(parse_refusal(R"({"+:a": {"group_size": -2}})"), HasSubstr("dynamic \"a\": group_size is -2"));
  EXPECT_THAT(parse_refusal(R"({"+:a": {"sym": 1}})"), HasSubstr("dynamic \"a\": sym is 1"));
  EXPECT_THAT(parse_refusal(R"({"+:a": 8})"), HasSubstr("dynamic \"+:a\" is 8"));
  EXPECT_THAT(parse_refusal(R"({"+:a": {}})"), HasSubstr("dynamic \"+:a\": it changes nothing"));
  EXPECT_THAT(
      parse_refusal(R"({"+:a": {"bit": 8}})"),
      HasSubstr("dynamic \"+:a\": \"bit\" is not a setting of single modules, but bits, group_size, sym"));
  EXPECT_THAT(parse_refusal(R"({"a": {"bits": 8}, "a": {"bits": 4}})"), HasSubstr("dynamic: "));
}

TEST(DynamicRules, CatastrophicPatternStopsWithAnError) {
  const GPTQConfig config = with_dynamic(R"({"(a+)+$": {"bits": 8}})");
  EXPECT_THAT(rule_of(config, std::string(60, 'a') + "!"), HasSubstr("fails on the module"));
}

TEST(DynamicRules, ModuleNamesThatAreNoUtf8AreAnError) {
  EXPECT_THAT(rule_of(with_dynamic(R"({"a": {}})"), "a\xFF"), HasSubstr("fails on the module"));
}

// -------------------------------------------------------------------------------------------- AWQ

TEST(AwqConfig, FilesOfAutoAwqAreRead) {
  const auto gemm = load<AwqConfig>("awq-gemm-g32-skip");
  EXPECT_EQ(gemm.bits, 4);
  EXPECT_EQ(gemm.group_size, 32);
  EXPECT_TRUE(gemm.zero_point);
  EXPECT_EQ(gemm.version, "gemm");
  EXPECT_THAT(gemm.modules_to_not_convert, ElementsAre("o_proj", "layers.2.mlp"));
  EXPECT_EQ(load<AwqConfig>("awq-gemv-g64").version, "gemv");
  EXPECT_EQ(load<AwqConfig>("awq-gemv_fast-g128").version, "gemv_fast");
  EXPECT_EQ(load<AwqConfig>("awq-marlin-g128").version, "marlin");
}

TEST(AwqConfig, FilesOfGptqModelAreRead) {
  const auto config = load<AwqConfig>("awq-gptqmodel-gemm-sym");
  EXPECT_FALSE(config.zero_point);
  EXPECT_EQ(config.version, "gemm");
  EXPECT_EQ(config.group_size, 128);
}

TEST(AwqConfig, OldNamesAreUnderstood) {
  const auto config =
      parse<AwqConfig>(R"({"w_bit": 4, "q_group_size": 64, "zero_point": true, "version": "GEMV"})");
  EXPECT_EQ(config.group_size, 64);
  EXPECT_EQ(config.version, "gemv");
  EXPECT_EQ(parse<AwqConfig>(R"({"backend": "autoawq"})").backend, "auto");
  EXPECT_EQ(parse<AwqConfig>(R"({"backend": "llm-awq"})").version, "llm-awq");
}

TEST(AwqConfig, ValuesOutOfRangeAreRefused) {
  EXPECT_THAT(fault<AwqConfig>(R"({"bits": 3})"), HasSubstr("bits is 3"));
  EXPECT_THAT(fault<AwqConfig>(R"({"bits": "4"})"), HasSubstr("bits is \"4\""));
  EXPECT_THAT(fault<AwqConfig>(R"({"group_size": 0})"), HasSubstr("group_size is 0"));
  EXPECT_THAT(fault<AwqConfig>(R"({"version": "gemx"})"), HasSubstr("one of gemm, gemv, gemv_fast"));
  EXPECT_THAT(fault<AwqConfig>(R"({"backend": "cuda9"})"), HasSubstr("backend is \"cuda9\""));
  EXPECT_THAT(fault<AwqConfig>(R"({"zero_point": 1})"), HasSubstr("zero_point is 1"));
  EXPECT_THAT(fault<AwqConfig>(R"({"do_fuse": true})"), HasSubstr("do_fuse"));
  EXPECT_THAT(fault<AwqConfig>(R"({"modules_to_fuse": {}})"), HasSubstr("modules_to_fuse"));
  EXPECT_EQ(fault<AwqConfig>(R"({"do_fuse": false, "modules_to_fuse": null})"), "accepted");
  EXPECT_THAT(fault<AwqConfig>(R"({"modules_to_not_convert": [1]})"), HasSubstr("list of strings"));
  EXPECT_THAT(fault<AwqConfig>(R"({"pack_dtype": "int64"})"), HasSubstr("pack_dtype"));
}

TEST(AwqConfig, NewConfigurationIsWrittenInFull) {
  EXPECT_EQ(AwqConfig{}.to_json(), must_parse(R"({"quant_method": "awq", "bits": 4, "group_size": 128,
    "zero_point": true, "version": "gemm", "modules_to_not_convert": null})"));
  AwqConfig config;
  config.meta = {{"quantizer", {"nibble:0.1.0"}}};
  EXPECT_EQ(config.to_json()["meta"], must_parse(R"({"quantizer": ["nibble:0.1.0"]})"));
  EXPECT_TRUE(AwqConfig::from_json(config.to_json()));
}

// ----------------------------------------------------------------------------------- bitsandbytes

constexpr std::string_view kBnb4 = R"("load_in_4bit": true)";

std::string bnb_fault(std::string_view more) {
  return fault<BitsAndBytesConfig>(fmt::format("{{{}, {}}}", kBnb4, more));
}

TEST(BitsAndBytesConfig, DefaultsAreThoseOfTransformers) {
  const auto config = parse<BitsAndBytesConfig>(R"({"load_in_4bit": true})");
  EXPECT_EQ(config.bnb_4bit_quant_type, "fp4");
  EXPECT_EQ(config.llm_int8_threshold, 6.0);
  EXPECT_FALSE(config.bnb_4bit_use_double_quant);
  EXPECT_FALSE(config.bnb_4bit_compute_dtype.has_value());
  EXPECT_FALSE(config.bnb_4bit_quant_storage.has_value());
  EXPECT_FALSE(config.llm_int8_skip_modules.has_value());
}

TEST(BitsAndBytesConfig, FilesOfTransformersAreRead) {
  const auto nf4 = load<BitsAndBytesConfig>("bnb-nf4-dq-bf16-storage");
  EXPECT_TRUE(nf4.load_in_4bit);
  EXPECT_EQ(nf4.bnb_4bit_quant_type, "nf4");
  EXPECT_TRUE(nf4.bnb_4bit_use_double_quant);
  EXPECT_EQ(nf4.bnb_4bit_compute_dtype, DType::kBF16);
  EXPECT_EQ(nf4.bnb_4bit_quant_storage, DType::kBF16);
  const auto int8 = load<BitsAndBytesConfig>("bnb-int8-outlier-skip");
  EXPECT_TRUE(int8.load_in_8bit);
  ASSERT_TRUE(int8.llm_int8_skip_modules.has_value());
  EXPECT_EQ(int8.llm_int8_skip_modules->size(), 3u);
}

TEST(BitsAndBytesConfig, MirroredFlagsAreUnderstood) {
  EXPECT_TRUE(parse<BitsAndBytesConfig>(R"({"_load_in_8bit": true})").load_in_8bit);
  EXPECT_THAT(bnb_fault(R"("_load_in_4bit": false)"), HasSubstr("_load_in_4bit is false"));
}

TEST(BitsAndBytesConfig, TypesAreStrict) {
  EXPECT_THAT(bnb_fault(R"("llm_int8_threshold": 6)"), HasSubstr("must be a float"));
  EXPECT_THAT(bnb_fault(R"("load_in_8bit": 0)"), HasSubstr("load_in_8bit is 0"));
  EXPECT_THAT(bnb_fault(R"("llm_int8_skip_modules": "lm_head")"), HasSubstr("list of strings"));
  EXPECT_THAT(bnb_fault(R"("llm_int8_enable_fp32_cpu_offload": "no")"), HasSubstr("offload is \"no\""));
  EXPECT_THAT(bnb_fault(R"("llm_int8_has_fp16_weight": 1)"), HasSubstr("fp16_weight is 1"));
  EXPECT_THAT(bnb_fault(R"("bnb_4bit_compute_dtype": 16)"), HasSubstr("compute_dtype is 16"));
  EXPECT_THAT(bnb_fault(R"("bnb_4bit_compute_dtype": "float17")"), HasSubstr("\"float17\""));
  EXPECT_THAT(bnb_fault(R"("bnb_4bit_compute_dtype": "int8")"), HasSubstr("compute_dtype is \"int8\""));
  EXPECT_THAT(bnb_fault(R"("bnb_4bit_quant_type": "nf3")"), HasSubstr("one of fp4, nf4"));
  EXPECT_THAT(bnb_fault(R"("bnb_4bit_use_double_quant": null, "bnb_4bit_quant_type": 4)"),
              HasSubstr("type is 4"));
  EXPECT_THAT(bnb_fault(R"("bnb_4bit_quant_storage": "int64")"), HasSubstr("quant_storage is \"int64\""));
}

TEST(BitsAndBytesConfig, ExactlyOneFlagMustBeTrue) {
  EXPECT_THAT(bnb_fault(R"("load_in_8bit": true)"), HasSubstr("both true"));
  EXPECT_THAT(fault<BitsAndBytesConfig>(R"({"load_in_8bit": false})"), HasSubstr("neither"));
  EXPECT_FALSE(BitsAndBytesConfig{}.validate().has_value());
}

TEST(BitsAndBytesConfig, GptqModelsLayoutOfThatNameIsUnsupported) {
  const auto config = BitsAndBytesConfig::from_json(must_parse(R"({"format": "nf4", "block_size": 64})"));
  ASSERT_FALSE(config.has_value());
  EXPECT_EQ(config.error().code, ErrorCode::kUnsupported);
}

// ------------------------------------------------------------------------------------ all methods

class QuantizedModel : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Fixtures, QuantizedModel,
                         testing::Values("awq-gemm-g128", "awq-gemm-g32-skip", "awq-gemm-g64", "awq-gemv-g64",
                                         "awq-gemv_fast-g128", "awq-gptqmodel-gemm-sym", "awq-marlin-g128",
                                         "bnb-fp4", "bnb-int8", "bnb-int8-outlier-skip", "bnb-nf4",
                                         "bnb-nf4-bf16", "bnb-nf4-dq", "bnb-nf4-dq-bf16-storage",
                                         "gptq-2b-g32-asym-v2", "gptq-3b-g64", "gptq-4b-dynamic",
                                         "gptq-4b-g-1", "gptq-4b-g128", "gptq-4b-g128-desc_act",
                                         "gptq-4b-g32-asym", "gptq-4b-g32-asym-v2", "gptq-4b-lm_head",
                                         "gptq-5b-g64-planar", "gptq-8b-g128"));

TEST_P(QuantizedModel, WritingBackChangesNothing) {
  const Json file = read_test_json(std::string("models/") + GetParam() + "/config.json").value();
  const auto resolved = resolve(std::string("models/") + GetParam());
  ASSERT_TRUE(resolved.has_value()) << to_string(resolved.error());
  EXPECT_TRUE(resolved->pre_quantized);
  EXPECT_EQ(dump_json(to_json(*resolved->config)), dump_json(file["quantization_config"]));
}

TEST(QuantizationConfig, FloatModelHasNone) {
  const auto resolved = resolve("models/tiny-llama");
  ASSERT_TRUE(resolved.has_value());
  EXPECT_FALSE(resolved->config.has_value());
  EXPECT_FALSE(resolved->pre_quantized);
}

TEST(QuantizationConfig, LoadFlagsCountMoreThanQuantMethod) {
  const auto config =
      quantization_config_from_json(must_parse(R"({"quant_method": "gptq", "load_in_8bit": true})"));
  ASSERT_TRUE(config.has_value()) << to_string(config.error());
  EXPECT_EQ(quant_method(*config), "bitsandbytes");
}

TEST(QuantizationConfig, UnknownKeysAreWrittenBack) {
  const auto config = quantization_config_from_json(
      must_parse(R"({"quant_method": "gptq", "bits": 4, "my_key": {"a": [1]}, "meta": {"uri": "x"}})"));
  ASSERT_TRUE(config.has_value());
  const Json written = to_json(*config);
  EXPECT_EQ(written["my_key"], must_parse(R"({"a": [1]})"));
  EXPECT_EQ(written["meta"], must_parse(R"({"uri": "x"})"));
}

TEST(QuantizationConfig, ChangedValuesAreWrittenUnderAllTheirNames) {
  auto config =
      parse<GPTQConfig>(R"({"bits": 4, "w_bit": 4, "format": "gptq", "meta": {"damp_percent": 0.05}})");
  config.bits = 8;
  config.checkpoint_format = "gptq_v2";
  config.damp_percent = 0.01;
  const Json written = config.to_json();
  EXPECT_EQ(written["bits"], 8);
  EXPECT_EQ(written["w_bit"], 8);
  EXPECT_EQ(written["format"], "gptq_v2");
  EXPECT_EQ(written["checkpoint_format"], "gptq_v2");
  EXPECT_EQ(written["meta"]["damp_percent"], 0.01);
  EXPECT_FALSE(written.contains("damp_percent"));
}

TEST(QuantizationConfig, MalformedFilesAreRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"awq-bits-3", "bits is 3"},
      {"awq-unknown-version", "\"gemx\""},
      {"bnb-both-flags", "both true"},
      {"bnb-threshold-int", "llm_int8_threshold is 6"},
      {"gptq-bits-5", "gptq_p"},
      {"gptq-bits-string", "bits is \"four\""},
      {"gptq-conflicting-files", "bits is 4 in config.json, but 8"},
      {"gptq-dynamic-bad-regex", "\"(unclosed\""},
      {"gptq-group-0", "group_size is 0"},
      {"gptq-group-minus-5", "group_size is -5"},
      {"gptq-marlin-format", "marlin"},
      {"gptq-pack-int16", "int16"},
      {"gptq-unknown-format", "\"gptq_v9\""},
      {"quant-missing-method", "quant_method is missing"},
      {"quant-unknown-method", "\"gptqq\""},
  };
  for (const auto& [folder, says] : cases) {
    const auto resolved = resolve(std::string("malformed/") + folder);
    ASSERT_FALSE(resolved.has_value()) << folder;
    EXPECT_THAT(resolved.error().what, HasSubstr(says)) << folder;
    EXPECT_THAT(resolved.error().what, testing::Not(HasSubstr("\n"))) << folder;
  }
}

TEST(QuantizationConfig, ControlsAreAccepted) {
  for (const char* folder : {"valid-awq", "valid-bnb4", "valid-float", "valid-gptq", "valid-int8"}) {
    const auto resolved = resolve(std::string("malformed/") + folder);
    EXPECT_TRUE(resolved.has_value()) << folder << ": " << to_string(resolved.error());
  }
}

TEST(QuantizationConfig, WhatIsNoObjectIsRefused) {
  for (const char* text : {"[]", "7", "\"gptq\"", "true"}) {
    EXPECT_FALSE(quantization_config_from_json(must_parse(text)).has_value()) << text;
    EXPECT_FALSE(GPTQConfig::from_json(must_parse(text)).has_value()) << text;
    EXPECT_FALSE(AwqConfig::from_json(must_parse(text)).has_value()) << text;
    EXPECT_FALSE(BitsAndBytesConfig::from_json(must_parse(text)).has_value()) << text;
  }
}

TEST(QuantizationConfig, NoValueOfAnyKeyIsFatal) {
  const Json values =
      must_parse(R"([null, true, -1, 0, 1, 1.5, 1e300, 9223372036854775808, "", "x", [], [[]], [1],
    ["x"], {}, {"a": []}, {"-:a": 1, "(": {}}, {"quantizer": 1}, {"damp_percent": "x", "quantizer": [[1]]}])");
  size_t refused = 0;
  for (const char* model : {"gptq-4b-dynamic", "awq-gptqmodel-gemm-sym", "bnb-nf4-dq", "bnb-int8"}) {
    Json original =
        read_test_json(fmt::format("models/{}/config.json", model)).value()["quantization_config"];
    for (const char* more :
         {"dataset", "exllama_config", "dynamic", "w_bit", "modules_in_block_to_quantize", "sym"}) {
      if (!original.contains(more)) original[more] = nullptr;
    }
    for (const auto& [key, unused] : original.items()) {
      for (const Json& value : values) {
        Json changed = original;
        changed[key] = value;
        const auto config = quantization_config_from_json(changed);
        if (config) {
          EXPECT_TRUE(quantization_config_from_json(to_json(*config)).has_value()) << key << ": " << value;
        } else {
          ++refused;
          EXPECT_FALSE(config.error().what.empty()) << key << ": " << value;
        }
      }
    }
  }
  EXPECT_GT(refused, 300u);
}

// ---------------------------------------------------------------------------------------- resolve

constexpr std::string_view kGptq4 =
    R"({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": true, "desc_act": false})";

TEST(ResolveQuantization, QuantizeConfigAloneIsEnough) {
  const auto gptq = resolve_quantization(Json::object(), must_parse(R"({"bits": 4, "sym": true})"), {});
  ASSERT_TRUE(gptq.has_value()) << to_string(gptq.error());
  EXPECT_TRUE(gptq->pre_quantized);
  EXPECT_EQ(quant_method(*gptq->config), "gptq");
  const auto awq = resolve_quantization(
      Json::object(),
      must_parse(R"({"zero_point": true, "q_group_size": 64, "w_bit": 4, "version": "GEMM"})"), {});
  ASSERT_TRUE(awq.has_value()) << to_string(awq.error());
  EXPECT_EQ(quant_method(*awq->config), "awq");
}

TEST(ResolveQuantization, EveryContradictionIsListed) {
  const Json config{{"quantization_config", must_parse(kGptq4)}};
  const auto resolved = resolve_quantization(
      config,
      must_parse(
          R"({"bits": 8, "group_size": 32, "sym": false, "desc_act": true, "checkpoint_format": "gptq_v2"})"),
      {});
  ASSERT_FALSE(resolved.has_value());
  for (const char* key : {"bits", "group_size", "sym", "desc_act", "format"}) {
    EXPECT_THAT(resolved.error().what, HasSubstr(key));
  }
}

TEST(ResolveQuantization, OriginOfEachValueIsTold) {
  const Json config{
      {"quantization_config", must_parse(R"({"quant_method": "gptq", "w_bit": 4, "sym": true})")}};
  const auto resolved = resolve_quantization(config, std::nullopt, GPTQConfig{.backend = "torch"});
  ASSERT_TRUE(resolved.has_value()) << to_string(resolved.error());
  std::map<std::string, std::string> origins;
  for (const ConfigOrigin& origin : resolved->origins)
    origins[origin.key] = origin.value + " from " + origin.origin;
  EXPECT_EQ(origins["bits"], "4 from config.json");
  EXPECT_EQ(origins["group_size"], "128 from default");
  EXPECT_EQ(origins["backend"], "torch from flag");
}

TEST(ResolveQuantization, CheckpointWinsOverTheCaller) {
  const Json config{{"quantization_config", must_parse(kGptq4)}};
  const auto resolved = resolve_quantization(config, std::nullopt, GPTQConfig{.bits = 8, .backend = "torch"});
  ASSERT_TRUE(resolved.has_value());
  const auto& merged = std::get<GPTQConfig>(*resolved->config);
  EXPECT_EQ(merged.bits, 4);
  EXPECT_EQ(merged.backend, "torch");
  EXPECT_THAT(warnings(), Contains(HasSubstr("quantized already")));
}

TEST(ResolveQuantization, AnotherClassIsAnError) {
  const Json config{{"quantization_config", must_parse(kGptq4)}};
  const auto resolved = resolve_quantization(config, std::nullopt, AwqConfig{});
  ASSERT_FALSE(resolved.has_value());
  EXPECT_EQ(resolved.error().code, ErrorCode::kInvalidArgument);
}

TEST(ResolveQuantization, CallersConfigurationQuantizesAFloatModel) {
  const auto resolved =
      resolve_quantization(Json::object(), std::nullopt, BitsAndBytesConfig{.load_in_4bit = true});
  ASSERT_TRUE(resolved.has_value());
  EXPECT_FALSE(resolved->pre_quantized);
  ASSERT_TRUE(resolved->config.has_value());
  EXPECT_EQ(quant_method(*resolved->config), "bitsandbytes");
  EXPECT_FALSE(resolve_quantization(Json::object(), std::nullopt, GPTQConfig{.bits = 17}).has_value());
}

TEST(ResolveQuantization, MissingSymIsWarnedAbout) {
  const Json config{{"quantization_config", must_parse(R"({"quant_method": "gptq", "bits": 4})")}};
  ASSERT_TRUE(resolve_quantization(config, std::nullopt, std::nullopt).has_value());
  EXPECT_THAT(warnings(), Contains(HasSubstr("does not say sym")));
}

}  // namespace
}  // namespace nibble
