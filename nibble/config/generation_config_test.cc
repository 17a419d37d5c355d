#include "nibble/config/generation_config.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/log.h"
#include "nibble/config/config_test_files.h"

namespace nibble {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(GenerationConfig, DefaultsAreThoseOfTransformers) {
  const GenerationConfig config = GenerationConfig::from_json(Json::object()).value();
  EXPECT_FALSE(config.do_sample);
  EXPECT_EQ(config.temperature, 1.0);
  EXPECT_EQ(config.top_k, 50u);
  EXPECT_EQ(config.top_p, 1.0);
  EXPECT_EQ(config.repetition_penalty, 1.0);
  EXPECT_TRUE(config.validate().has_value());
}

TEST(GenerationConfig, TinyLlamasFileIsRead) {
  const auto json = read_test_json("models/tiny-llama/generation_config.json");
  const GenerationConfig config = GenerationConfig::from_json(json.value()).value();
  EXPECT_THAT(config.eos_token_id, ElementsAre(0));
  EXPECT_THAT(config.bos_token_id, ElementsAre(0));
}

TEST(GenerationConfig, EveryKeyIsReadAndUnknownOnesAreKept) {
  const Json json =
      must_parse(R"({"max_new_tokens": 5, "max_length": 9, "min_new_tokens": 2, "do_sample": true,
    "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1,
    "presence_penalty": 0.5, "frequency_penalty": -0.5, "logit_bias": {"3": -100, "7": 1.5},
    "stop_strings": ["a", "b"], "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0, "seed": 42,
    "transformers_version": "4.46.0", "num_beams": null})");
  const GenerationConfig config = GenerationConfig::from_json(json).value();
  EXPECT_EQ(config.max_new_tokens, 5u);
  EXPECT_EQ(config.max_length, 9u);
  EXPECT_EQ(config.min_new_tokens, 2u);
  EXPECT_TRUE(config.do_sample);
  EXPECT_EQ(config.temperature, 0.6);
  EXPECT_EQ(config.top_k, 20u);
  EXPECT_EQ(config.top_p, 0.95);
  EXPECT_EQ(config.min_p, 0.05);
  EXPECT_EQ(config.repetition_penalty, 1.1);
  EXPECT_EQ(config.presence_penalty, 0.5);
  EXPECT_EQ(config.frequency_penalty, -0.5);
  EXPECT_EQ(config.logit_bias, (std::map<int32_t, double>{{3, -100.0}, {7, 1.5}}));
  EXPECT_THAT(config.stop_strings, ElementsAre("a", "b"));
  EXPECT_THAT(config.eos_token_id, ElementsAre(2, 3));
  EXPECT_EQ(config.pad_token_id, 0);
  EXPECT_EQ(config.seed, 42u);
  EXPECT_EQ(config.json, json);
  EXPECT_TRUE(config.validate().has_value());
}

TEST(GenerationConfig, WhatIsNotFollowedIsSaid) {
  const size_t before = warnings().size();
  ASSERT_TRUE(GenerationConfig::from_json(
      must_parse(R"({"num_beams": 1, "typical_p": 1, "no_repeat_ngram_size": 0, "bad_words_ids": null})")));
  EXPECT_EQ(warnings().size(), before);
  ASSERT_TRUE(GenerationConfig::from_json(must_parse(R"({"num_beams": 4, "no_repeat_ngram_size": 3})")));
  EXPECT_THAT(warnings(),
              Contains("generation_config.json: no_repeat_ngram_size, num_beams are not followed"));
}

TEST(GenerationConfig, WrongTypesAreNamed) {
  const auto config = GenerationConfig::from_json(
      must_parse(R"({"temperature": "hot", "eos_token_id": 1.5, "top_k": -3, "logit_bias": {"x": 1}})"));
  ASSERT_FALSE(config.has_value());
  EXPECT_THAT(config.error().what, HasSubstr("temperature is \"hot\""));
  EXPECT_THAT(config.error().what, HasSubstr("eos_token_id is 1.5"));
  EXPECT_THAT(config.error().what, HasSubstr("top_k is -3"));
  EXPECT_THAT(config.error().what, HasSubstr("logit_bias has \"x\""));
}

TEST(GenerationConfig, ValidateNamesEveryValueOutOfRange) {
  GenerationConfig config;
  config.do_sample = true;
  config.temperature = 0.0;
  config.top_p = 1.1;
  config.min_p = -0.1;
  config.repetition_penalty = 0.0;
  config.presence_penalty = 3.0;
  config.frequency_penalty = std::numeric_limits<double>::quiet_NaN();
  config.max_new_tokens = 0;
  config.stop_strings = {""};
  const Status status = config.validate();
  ASSERT_FALSE(status.has_value());
  for (const char* key : {"temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty",
                          "frequency_penalty", "max_new_tokens", "stop_strings"}) {
    EXPECT_THAT(status.error().what, HasSubstr(key));
  }
}

TEST(GenerationConfig, TemperatureDoesNotMatterWithoutSampling) {
  GenerationConfig config;
  config.temperature = 0.0;
  EXPECT_TRUE(config.validate().has_value());
}

}  // namespace
}  // namespace nibble
