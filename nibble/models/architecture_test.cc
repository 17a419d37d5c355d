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

}  // namespace
}  // namespace nibble
