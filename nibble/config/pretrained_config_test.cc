#include "nibble/config/pretrained_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/config/config_test_files.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

PretrainedConfig load(const std::string& file) {
  const auto json = read_test_json(file);
  EXPECT_TRUE(json.has_value()) << file;
  auto config = PretrainedConfig::from_json(json.value_or(Json()));
  EXPECT_TRUE(config.has_value()) << file << ": " << to_string(config.error());
  return config.value_or(PretrainedConfig{});
}

// A complete file, to be changed by the tests.
Json llama() {
  return must_parse(R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32,
    "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "vocab_size": 40, "max_position_embeddings": 64})");
}

Json with(Json json, std::string_view changes) {
  json.update(must_parse(changes));
  return json;
}

PretrainedConfig parse(const Json& json) {
  auto config = PretrainedConfig::from_json(json);
  EXPECT_TRUE(config.has_value()) << to_string(config.error());
  return config.value_or(PretrainedConfig{});
}

std::string fault(const Json& json) {
  const auto config = PretrainedConfig::from_json(json);
  return config ? "accepted" : config.error().what;
}

class Architecture : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Fixtures, Architecture,
                         testing::Values("gemma", "gemma2", "gemma3_text", "llama_bias", "llama_rope_dynamic",
                                         "llama_rope_linear", "llama_rope_llama3", "llama_rope_yarn",
                                         "mistral_sliding", "opt", "phi3_longrope_long",
                                         "phi3_longrope_short", "qwen2", "qwen2_sliding", "qwen3"));

TEST_P(Architecture, BothDialectsSayTheSame) {
  const std::string folder = std::string("architectures/") + GetParam() + "/";
  const PretrainedConfig a = load(folder + "config.json");
  const PretrainedConfig b = load(folder + "config.v4.json");
  EXPECT_EQ(a.model_type, b.model_type);
  EXPECT_EQ(a.architectures, b.architectures);
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.hidden_size, b.hidden_size);
  EXPECT_EQ(a.intermediate_size, b.intermediate_size);
  EXPECT_EQ(a.num_hidden_layers, b.num_hidden_layers);
  EXPECT_EQ(a.num_attention_heads, b.num_attention_heads);
  EXPECT_EQ(a.num_key_value_heads, b.num_key_value_heads);
  EXPECT_EQ(a.head_dim, b.head_dim);
  EXPECT_EQ(a.max_position_embeddings, b.max_position_embeddings);
  EXPECT_EQ(a.hidden_act, b.hidden_act);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.tie_word_embeddings, b.tie_word_embeddings);
  EXPECT_EQ(a.dtype, b.dtype);
  EXPECT_TRUE(a.has_dtype);
  EXPECT_EQ(a.rope, b.rope);
  EXPECT_EQ(a.rope_sliding, b.rope_sliding);
  EXPECT_EQ(a.sliding_window, b.sliding_window);
  EXPECT_EQ(a.layer_types, b.layer_types);
  EXPECT_EQ(a.bos_token_id, b.bos_token_id);
  EXPECT_EQ(a.eos_token_id, b.eos_token_id);
  EXPECT_EQ(a.pad_token_id, b.pad_token_id);
}

TEST(PretrainedConfig, TinyLlamaIsReadAsItStands) {
  const PretrainedConfig config = load("models/tiny-llama/config.json");
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_THAT(config.architectures, ElementsAre("LlamaForCausalLM"));
  EXPECT_EQ(config.vocab_size, 2048u);
  EXPECT_EQ(config.hidden_size, 256u);
  EXPECT_EQ(config.intermediate_size, 512u);
  EXPECT_EQ(config.num_hidden_layers, 3u);
  EXPECT_EQ(config.num_attention_heads, 8u);
  EXPECT_EQ(config.num_key_value_heads, 4u);
  EXPECT_EQ(config.head_dim, 32u);
  EXPECT_EQ(config.max_position_embeddings, 1024u);
  EXPECT_EQ(config.hidden_act, "silu");
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.dtype, DType::kF16);
  EXPECT_EQ(config.rope, RopeParameters{});
  EXPECT_FALSE(config.sliding_window.has_value());
  EXPECT_THAT(config.layer_types, ElementsAre("full_attention", "full_attention", "full_attention"));
  EXPECT_THAT(config.bos_token_id, ElementsAre(0));
  EXPECT_THAT(config.eos_token_id, ElementsAre(0));
  EXPECT_FALSE(config.pad_token_id.has_value());
}

TEST(PretrainedConfig, RopeKindsAreReadWithTheirParameters) {
  const RopeParameters llama3 = load("architectures/llama_rope_llama3/config.v4.json").rope;
  EXPECT_EQ(llama3.rope_type, "llama3");
  EXPECT_EQ(llama3.factor, 8.0);
  EXPECT_EQ(llama3.low_freq_factor, 1.0);
  EXPECT_EQ(llama3.high_freq_factor, 4.0);
  EXPECT_EQ(llama3.original_max_position_embeddings, 64u);
  const RopeParameters longrope = load("architectures/phi3_longrope_long/config.v4.json").rope;
  EXPECT_EQ(longrope.rope_type, "longrope");
  EXPECT_EQ(longrope.factor, 512.0 / 16.0);
  EXPECT_EQ(longrope.original_max_position_embeddings, 16u);
  EXPECT_THAT(longrope.long_factor, ElementsAre(1.0, 2.5, 4.0, 5.5, 7.0, 8.5, 10.0, 11.5));
  EXPECT_THAT(longrope.short_factor, ElementsAre(1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35));
}

TEST(PretrainedConfig, Gemma3LayersHaveTheirOwnRope) {
  const PretrainedConfig config = load("architectures/gemma3_text/config.v4.json");
  EXPECT_EQ(config.rope.rope_type, "linear");
  EXPECT_EQ(config.rope.rope_theta, 1e6);
  ASSERT_TRUE(config.rope_sliding.has_value());
  EXPECT_EQ(config.rope_sliding->rope_type, "default");
  EXPECT_EQ(config.rope_sliding->rope_theta, 1e4);
  EXPECT_EQ(config.sliding_window, 16u);
  EXPECT_THAT(config.layer_types, ElementsAre("sliding_attention", "full_attention", "sliding_attention"));
}

TEST(PretrainedConfig, OptKeysDifferFromLlamas) {
  const PretrainedConfig config = load("architectures/opt/config.v4.json");
  EXPECT_EQ(config.intermediate_size, 128u);
  EXPECT_EQ(config.hidden_act, "relu");
  EXPECT_EQ(config.num_key_value_heads, 4u);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_TRUE(config.get_bool("do_layer_norm_before", false).value());
}

TEST(PretrainedConfig, Gpt2KeysAreKnown) {
  const PretrainedConfig config = parse(must_parse(R"({"model_type": "gpt2", "n_embd": 64, "n_head": 4,
    "n_layer": 2, "n_positions": 128, "n_inner": null, "vocab_size": 256, "layer_norm_epsilon": 1e-05})"));
  EXPECT_EQ(config.hidden_size, 64u);
  EXPECT_EQ(config.intermediate_size, 256u);
  EXPECT_EQ(config.num_hidden_layers, 2u);
  EXPECT_EQ(config.num_attention_heads, 4u);
  EXPECT_EQ(config.max_position_embeddings, 128u);
  EXPECT_EQ(config.hidden_act, "gelu_new");
}

// The sizes of bigscience/bloom-560m and tiiuae/falcon-7b, under the keys that their files have.
TEST(PretrainedConfig, PublishedFilesOfBloomAndFalconAreRead) {
  const PretrainedConfig bloom = parse(must_parse(R"({"model_type": "bloom", "n_embed": 1024, "n_inner": null,
    "n_layer": 24, "num_attention_heads": 16, "vocab_size": 250880, "layer_norm_epsilon": 1e-05,
    "apply_residual_connection_post_layernorm": false, "offset_alibi": 100, "seq_length": 2048})"));
  EXPECT_EQ(bloom.hidden_size, 1024u);
  EXPECT_EQ(bloom.num_hidden_layers, 24u);
  EXPECT_EQ(bloom.num_attention_heads, 16u);
  EXPECT_EQ(bloom.intermediate_size, 4096u);
  const PretrainedConfig falcon = parse(must_parse(R"({"model_type": "falcon", "alibi": false, "bias": false,
    "hidden_size": 4544, "layer_norm_epsilon": 1e-05, "multi_query": true, "new_decoder_architecture": false,
    "num_attention_heads": 71, "num_hidden_layers": 32, "parallel_attn": true, "vocab_size": 65024})"));
  EXPECT_EQ(falcon.max_position_embeddings, 2048u);
  EXPECT_EQ(falcon.num_key_value_heads, 1u);
  EXPECT_EQ(falcon.head_dim, 64u);
}

TEST(PretrainedConfig, GptJRotatesSixtyFourWhereTheFileSaysNothing) {
  const Json gptj = must_parse(R"({"model_type": "gptj", "n_embd": 4096, "n_head": 16, "n_layer": 2,
    "n_positions": 128, "vocab_size": 256})");
  EXPECT_EQ(parse(gptj).rope.partial_rotary_factor, 0.25);
  EXPECT_EQ(parse(with(gptj, R"({"rotary_dim": 128})")).rope.partial_rotary_factor, 0.5);
  EXPECT_EQ(parse(with(gptj, R"({"rotary_dim": null})")).rope.partial_rotary_factor, 1.0);
}

TEST(PretrainedConfig, FalconCountsKeyValueHeadsItsOwnWay) {
  const Json falcon = must_parse(R"({"model_type": "falcon", "hidden_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 4, "vocab_size": 8, "max_position_embeddings": 128})");
  EXPECT_EQ(parse(falcon).num_key_value_heads, 1u);
  EXPECT_EQ(parse(with(falcon, R"({"multi_query": false})")).num_key_value_heads, 4u);
  EXPECT_EQ(
      parse(with(falcon, R"({"new_decoder_architecture": true, "num_kv_heads": 2})")).num_key_value_heads,
      2u);
}

TEST(PretrainedConfig, LlamaDefaultsAreThoseOfItsClass) {
  const PretrainedConfig config = parse(llama());
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.head_dim, 16u);
  EXPECT_EQ(config.norm_eps, 1e-6);
  EXPECT_EQ(config.hidden_act, "silu");
  EXPECT_FALSE(config.has_dtype);
  Json without_kv = llama();
  without_kv.erase("num_key_value_heads");
  EXPECT_EQ(parse(without_kv).num_key_value_heads, 2u);
}

TEST(PretrainedConfig, GemmaDefaultsAreThoseOfItsClass) {
  const PretrainedConfig config = parse(with(llama(), R"({"model_type": "gemma", "hidden_act": "gelu"})"));
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.head_dim, 256u);
  EXPECT_EQ(config.hidden_act, "gelu_pytorch_tanh");
  EXPECT_EQ(
      parse(with(llama(), R"({"model_type": "gemma", "hidden_act": "gelu", "hidden_activation": "relu"})"))
          .hidden_act,
      "relu");
}

TEST(PretrainedConfig, AllMistralLayersSlideWhereAWindowIsSet) {
  const PretrainedConfig set = parse(with(llama(), R"({"model_type": "mistral", "sliding_window": 7})"));
  EXPECT_EQ(set.sliding_window, 7u);
  EXPECT_THAT(set.layer_types, ElementsAre("sliding_attention", "sliding_attention"));
  const PretrainedConfig none = parse(with(llama(), R"({"model_type": "mistral", "sliding_window": null})"));
  EXPECT_FALSE(none.sliding_window.has_value());
  EXPECT_THAT(none.layer_types, ElementsAre("full_attention", "full_attention"));
}

TEST(PretrainedConfig, QwenLayersSlideFromMaxWindowLayersOn) {
  const Json qwen = with(llama(), R"({"model_type": "qwen2", "num_hidden_layers": 3, "sliding_window": 9,
    "max_window_layers": 2})");
  EXPECT_FALSE(parse(qwen).sliding_window.has_value());
  const PretrainedConfig on = parse(with(qwen, R"({"use_sliding_window": true})"));
  EXPECT_EQ(on.sliding_window, 9u);
  EXPECT_THAT(on.layer_types, ElementsAre("full_attention", "full_attention", "sliding_attention"));
  // Layers that are all below max_window_layers: no window at all.
  const PretrainedConfig none = parse(with(qwen, R"({"use_sliding_window": true, "max_window_layers": 3})"));
  EXPECT_FALSE(none.sliding_window.has_value());
}

TEST(PretrainedConfig, ExplicitLayerTypesWin) {
  const PretrainedConfig config = parse(with(llama(), R"({"model_type": "gemma2", "sliding_window": 5,
    "layer_types": ["full_attention", "sliding_attention"]})"));
  EXPECT_THAT(config.layer_types, ElementsAre("full_attention", "sliding_attention"));
  EXPECT_EQ(config.sliding_window, 5u);
  EXPECT_THAT(fault(with(llama(), R"({"layer_types": ["full_attention"]})")), HasSubstr("1 entries"));
  EXPECT_THAT(fault(with(llama(), R"({"layer_types": ["full_attention", "mamba"]})")),
              HasSubstr("\"mamba\""));
}

TEST(PretrainedConfig, OldPhi3FilesCallLongropeSu) {
  const PretrainedConfig config = parse(with(llama(), R"({"model_type": "phi3",
    "original_max_position_embeddings": 16, "rope_scaling": {"type": "su", "short_factor": [1, 1, 1, 1, 1, 1, 1, 1],
    "long_factor": [2, 2, 2, 2, 2, 2, 2, 2]}})"));
  EXPECT_EQ(config.rope.rope_type, "longrope");
  EXPECT_EQ(config.rope.factor, 4.0);
}

TEST(PretrainedConfig, PartialRotaryFactorCountsForTheFactorLists) {
  const PretrainedConfig config = parse(with(llama(), R"({"model_type": "phi3", "partial_rotary_factor": 0.75,
    "original_max_position_embeddings": 16, "rope_scaling": {"type": "longrope",
    "short_factor": [1, 1, 1, 1, 1, 1], "long_factor": [2, 2, 2, 2, 2, 2]}})"));
  EXPECT_EQ(config.rope.partial_rotary_factor, 0.75);
  EXPECT_EQ(config.rope.long_factor.size(), 6u);
}

TEST(PretrainedConfig, TokenIdsMayBeNoneOneOrSeveral) {
  const PretrainedConfig config =
      parse(with(llama(), R"({"bos_token_id": null, "eos_token_id": [2, 7], "pad_token_id": -1})"));
  EXPECT_TRUE(config.bos_token_id.empty());
  EXPECT_THAT(config.eos_token_id, ElementsAre(2, 7));
  EXPECT_FALSE(config.pad_token_id.has_value());
  EXPECT_THAT(fault(with(llama(), R"({"eos_token_id": "</s>"})")), HasSubstr("eos_token_id is \"</s>\""));
}

TEST(PretrainedConfig, AllFaultsAreReportedTogether) {
  const std::string what =
      fault(with(llama(), R"({"hidden_size": -1, "vocab_size": "many", "hidden_act": "x"})"));
  EXPECT_THAT(what, HasSubstr("hidden_size is -1"));
  EXPECT_THAT(what, HasSubstr("vocab_size is \"many\""));
  EXPECT_THAT(what, HasSubstr("hidden_act is \"x\""));
}

TEST(PretrainedConfig, RopeFaultsAreFound) {
  const auto scaled = [](std::string_view scaling) {
    return fault(with(llama(), fmt::format(R"({{"rope_scaling": {}}})", scaling)));
  };
  EXPECT_THAT(scaled(R"({"type": "linear"})"), HasSubstr("rope_scaling.factor is missing"));
  EXPECT_THAT(scaled(R"({"rope_type": "linear", "factor": "2"})"), HasSubstr("factor is \"2\""));
  EXPECT_THAT(scaled(R"({"rope_type": "llama3", "factor": 8})"), HasSubstr("low_freq_factor is missing"));
  EXPECT_THAT(scaled(R"({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
                         "original_max_position_embeddings": 16})"),
              HasSubstr("above low_freq_factor"));
  EXPECT_THAT(scaled(R"({"rope_type": "yarn"})"), HasSubstr("factor is missing"));
  EXPECT_THAT(scaled("7"), HasSubstr("rope_scaling is 7"));
  EXPECT_THAT(fault(with(llama(), R"({"rope_theta": 0})")), HasSubstr("rope_theta is 0"));
  EXPECT_THAT(fault(with(llama(), R"({"partial_rotary_factor": 1.5})")),
              HasSubstr("partial_rotary_factor is 1.5"));
  EXPECT_THAT(fault(with(llama(), R"({"head_dim": 15})")), HasSubstr("even number"));
}

TEST(PretrainedConfig, AccessorsNameTheKeyOfAWrongType) {
  const PretrainedConfig config =
      parse(with(llama(), R"({"a": 1.5, "b": "x", "c": true, "d": null, "e": 3})"));
  EXPECT_EQ(config.get_number("a", 0.0).value(), 1.5);
  EXPECT_EQ(config.get_number("d", 2.0).value(), 2.0);
  EXPECT_EQ(config.get_size("e", 0).value(), 3u);
  EXPECT_EQ(config.get_size("missing", 9).value(), 9u);
  EXPECT_TRUE(config.get_bool("c", false).value());
  EXPECT_EQ(config.get_string("b", "").value(), "x");
  EXPECT_EQ(config.get_optional_number("d").value(), std::nullopt);
  EXPECT_EQ(config.get_optional_number("a").value(), 1.5);
  EXPECT_THAT(config.get_size("a", 0).error().what, HasSubstr("a is 1.5"));
  EXPECT_THAT(config.get_bool("e", false).error().what, HasSubstr("e is 3"));
  EXPECT_THAT(config.get_number("b", 0.0).error().what, HasSubstr("b is \"x\""));
}

struct Malformed {
  const char* folder;
  const char* says;
};

TEST(PretrainedConfig, MalformedFilesAreRefusedByKeyAndValue) {
  const Malformed cases[] = {
      {"config-array", "a list"},
      {"config-eps-negative", "rms_norm_eps is -1"},
      {"config-float-size", "intermediate_size is 64.5"},
      {"config-heads-not-dividing", "num_attention_heads 3"},
      {"config-huge-layers", "num_hidden_layers is 1000000000000"},
      {"config-huge-vocab", "vocab_size is 4611686018427387904"},
      {"config-kv-not-dividing", "num_key_value_heads is 3"},
      {"config-missing-hidden", "hidden_size is missing"},
      {"config-missing-model-type", "model_type is missing"},
      {"config-nan-literal", "not valid JSON"},
      {"config-negative-hidden", "hidden_size is -32"},
      {"config-not-json", "not valid JSON"},
      {"config-null-size", "hidden_size is null"},
      {"config-rope-factor-zero", "rope_scaling.factor is 0"},
      {"config-rope-longrope-length", "3 entries"},
      {"config-rope-unknown", "\"spiral\""},
      {"config-string-size", "hidden_size is \"32\""},
      {"config-unknown-activation", "\"swoosh\""},
      {"config-unknown-model-type", "\"lllama\""},
      {"config-zero-heads", "num_attention_heads is 0"},
  };
  for (const Malformed& c : cases) {
    SCOPED_TRACE(c.folder);
    const auto json = read_test_json(std::string("malformed/") + c.folder + "/config.json");
    const auto config = json ? PretrainedConfig::from_json(*json) : Failure(json.error());
    ASSERT_FALSE(config.has_value());
    EXPECT_THAT(config.error().what, HasSubstr(c.says));
    EXPECT_EQ(config.error().what.find('\n'), std::string::npos);
  }
}

// Whatever stands under a key is accepted or refused with a message; a sanitizer build sees the rest.
TEST(PretrainedConfig, NoValueOfAnyKeyIsFatal) {
  const Json values =
      must_parse(R"([null, true, -1, 0, 1, 3, 1.5, -0.0, 1e300, 9223372036854775808, "", "x", [], [[]],
    [1], ["x"], {}, {"a": []}, {"full_attention": {}}, {"rope_type": "longrope", "short_factor": 1},
    {"rope_type": 4}, {"type": "yarn", "factor": [], "original_max_position_embeddings": -1}])");
  size_t refused = 0;
  for (const char* folder :
       {"gemma3_text", "phi3_longrope_long", "qwen2_sliding", "opt", "llama_rope_yarn"}) {
    for (const char* file : {"/config.json", "/config.v4.json"}) {
      const Json original = read_test_json(std::string("architectures/") + folder + file).value();
      for (const auto& [key, unused] : original.items()) {
        for (const Json& value : values) {
          Json changed = original;
          changed[key] = value;
          const auto config = PretrainedConfig::from_json(changed);
          if (config) continue;
          ++refused;
          EXPECT_FALSE(config.error().what.empty()) << key << ": " << value;
        }
      }
    }
  }
  EXPECT_GT(refused, 1000u);
}

TEST(PretrainedConfig, ControlsAreAccepted) {
  for (const char* name :
       {"valid-float", "valid-gptq", "valid-awq", "valid-bnb4", "valid-int8", "valid-sharded"}) {
    load(std::string("malformed/") + name + "/config.json");
  }
}

}  // namespace
}  // namespace nibble
