#include "nibble/evaluation/method.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

using testing::HasSubstr;

TEST(Method, ShortNamesBecomeConfigurations) {
  const Method gptq = parse_method("gptq:3:64:best").value();
  EXPECT_EQ(gptq.id, "gptq-3-64-best");
  EXPECT_EQ(gptq.label, "GPTQ 3-bit g64 (best)");
  EXPECT_EQ(std::get<GPTQConfig>(gptq.options.config).bits, 3);
  EXPECT_EQ(std::get<GPTQConfig>(gptq.options.config).group_size, 64);
  EXPECT_EQ(gptq.options.effort, Effort::kBest);
  EXPECT_FALSE(gptq.options.fit_group_size);
  EXPECT_EQ(gptq.command, "--method gptq --bits 3 --group-size 64 --effort best");

  const Method awq = parse_method("awq").value();
  EXPECT_EQ(std::get<AwqConfig>(awq.options.config).bits, 4);
  EXPECT_TRUE(awq.options.fit_group_size);

  const Method nf4 = parse_method("nf4-dq").value();
  EXPECT_TRUE(std::get<BitsAndBytesConfig>(nf4.options.config).bnb_4bit_use_double_quant);
  EXPECT_FALSE(parse_method("float").value().quantizes);
  EXPECT_TRUE(parse_method("rtn:8:-1").value().options.round_to_nearest);
}

TEST(Method, WrongOnesAreNamed) {
  for (const char* word :
       {"gptq:9", "gptq:4:0", "gptq:4:128:soon", "awq:3", "nf5", "", "gptq:4:64:best:x", "gptq:x"}) {
    const auto method = parse_method(word);
    ASSERT_FALSE(method) << word;
    EXPECT_THAT(to_string(method.error()), HasSubstr(fmt::format("\"{}\": ", word)));
    EXPECT_THAT(method.error().fix, HasSubstr("gptq:4:128"));
  }
  EXPECT_THAT(to_string(parse_methods("nf4,gptq,nf4").error()), HasSubstr("named twice"));
}

TEST(Method, TheDefaultListIsValid) { EXPECT_EQ(parse_methods(kDefaultMethods).value().size(), 6u); }

}  // namespace
}  // namespace nibble
