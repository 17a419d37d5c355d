#include "nibble/pipeline/method.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

using testing::HasSubstr;

TEST(Method, NamesSayHow) {
  EXPECT_FALSE(parse_method("float").value().quantize.has_value());
  const Method nf4 = parse_method("nf4+dq").value();
  EXPECT_EQ(nf4.name, "nf4-dq");
  const auto& bnb = std::get<BitsAndBytesConfig>(nf4.quantize->config);
  EXPECT_TRUE(bnb.load_in_4bit && bnb.bnb_4bit_use_double_quant);
  EXPECT_EQ(bnb.bnb_4bit_quant_type, "nf4");
  EXPECT_TRUE(std::get<BitsAndBytesConfig>(parse_method("int8")->quantize->config).load_in_8bit);

  const Method gptq = parse_method("gptq:3").value();
  EXPECT_TRUE(gptq.quantize->fit_group_size);
  EXPECT_EQ(std::get<GPTQConfig>(gptq.quantize->config).bits, 3);
  const Method fixed = parse_method("gptq:5:64").value();
  EXPECT_FALSE(fixed.quantize->fit_group_size);
  EXPECT_EQ(std::get<GPTQConfig>(fixed.quantize->config).group_size, 64);
  EXPECT_EQ(std::get<GPTQConfig>(fixed.quantize->config).checkpoint_format, "gptq_p");
  EXPECT_EQ(parse_method("awq")->name, "awq:4");
  EXPECT_EQ(std::get<AwqConfig>(parse_method("awq:4:32")->quantize->config).group_size, 32);
  EXPECT_TRUE(parse_method("rtn:8")->quantize->round_to_nearest);
}

TEST(Method, TheDefaultsAreMethods) {
  const auto methods = parse_methods(kDefaultMethods);
  ASSERT_TRUE(methods.has_value()) << to_string(methods.error());
  EXPECT_EQ(methods->size(), 7u);
}

TEST(Method, WhatIsNoneIsRefused) {
  for (const char* text :
       {"", "gguf", "nf4:4", "int8-dq", "gptq:", "gptq:4:", "gptq:x", "gptq:4:64:1", "gptq:9", "gptq:1",
        "gptq:4:0", "awq:3:128:", "float,,nf4", "float,", "nf4,nf4", "nf4-dq,nf4+dq"}) {
    const auto methods = parse_methods(text);
    ASSERT_FALSE(methods.has_value()) << text;
    EXPECT_EQ(methods.error().code, ErrorCode::kInvalidArgument) << text;
  }
  EXPECT_THAT(to_string(parse_methods("q4_0").error()), HasSubstr("Methods are float, nf4"));
}

}  // namespace
}  // namespace nibble
