#include "nibble/models/architecture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

Error error_of(const std::string& model_type) {
  PretrainedConfig config;
  config.model_type = model_type;
  const auto spec = make_decoder_spec(config);
  return spec ? Error{} : spec.error();
}

TEST(MakeDecoderSpec, NamesTheNearestOfAnUnknownModelType) {
  const Error error = error_of("qwen3_next");
  EXPECT_EQ(error.code, ErrorCode::kUnsupported);
  EXPECT_EQ(error.what, "model_type \"qwen3_next\" is not known");
  EXPECT_EQ(error.where, "config.json");
  EXPECT_THAT(error.fix,
              StartsWith("The nearest that Nibble runs: qwen3_moe, qwen3, qwen2_moe. All: llama, "));
  EXPECT_THAT(error_of("olmo3").fix, StartsWith("The nearest that Nibble runs: olmo, olmo2"));
}

TEST(MakeDecoderSpec, NamesNoneWhereNoneIsNear) {
  EXPECT_THAT(error_of("zamba_hybrid_rnn").fix, StartsWith("All: llama, "));
  EXPECT_THAT(error_of(std::string(100'000, 'a')).fix, Not(HasSubstr("nearest")));
}

PretrainedConfig config_of(const std::string& text) {
  auto config = PretrainedConfig::from_json(parse_json(text).value());
  return config ? *std::move(config) : PretrainedConfig();
}

const std::string kGemma2Config =
    R"({"model_type": "gemma2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "vocab_size": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 32)";

TEST(MakeDecoderSpec, MissingKeysHaveTheDefaultOfTheirClass) {
  const auto of_class = make_decoder_spec(config_of(kGemma2Config + "}"));
  ASSERT_TRUE(of_class) << to_string(of_class.error());
  EXPECT_EQ(of_class->attention_soft_cap, 50.f);
  EXPECT_EQ(of_class->final_soft_cap, 30.f);
  const auto none = make_decoder_spec(
      config_of(kGemma2Config + R"(, "attn_logit_softcapping": null, "final_logit_softcapping": 20})"));
  ASSERT_TRUE(none) << to_string(none.error());
  EXPECT_EQ(none->attention_soft_cap, 0.f);
  EXPECT_EQ(none->final_soft_cap, 20.f);
}

TEST(MakeDecoderSpec, AnEncoderIsRefused) {
  const auto spec = make_decoder_spec(config_of(kGemma2Config + R"(, "use_bidirectional_attention": true})"));
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(spec.error().what, HasSubstr("use_bidirectional_attention"));
}

}  // namespace
}  // namespace nibble
