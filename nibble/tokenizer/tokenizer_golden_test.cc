// What `tokenizers` 0.23 makes of 207 texts, for one tokenizer of every family.

#include <gtest/gtest.h>

#include "nibble/tokenizer/tokenizer_test_support.h"

namespace nibble {
namespace {

using tokenizer_test::data;
using tokenizer_test::load_golden;
using tokenizer_test::read_json_file;

class TokenizerGoldenTest : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(EveryFamily, TokenizerGoldenTest,
                         testing::ValuesIn(tokenizer_test::kGoldenTokenizers),
                         [](const auto& param) { return tokenizer_test::test_name(param.param); });

Json cases_of(std::string_view name) {
  return read_json_file(data("tokenizers") / std::filesystem::path(name) / "goldens.json")["cases"];
}

void expect_encodes(const Tokenizer& tokenizer, const Json& golden) {
  const auto& text = golden["text"].get_ref<const std::string&>();
  const auto plain = tokenizer.encode(text, {.add_special_tokens = false, .with_offsets = true});
  ASSERT_TRUE(plain) << to_string(plain.error());
  EXPECT_EQ(plain->ids, golden["ids"].get<std::vector<int32_t>>());
  EXPECT_EQ(plain->offsets, (golden["offsets"].get<std::vector<std::pair<size_t, size_t>>>()));

  const auto with_special = tokenizer.encode(text);
  ASSERT_TRUE(with_special);
  EXPECT_EQ(with_special->ids, golden["ids_with_special"].get<std::vector<int32_t>>());
  EXPECT_TRUE(with_special->offsets.empty());
}

void expect_decodes(const Tokenizer& tokenizer, const Json& golden) {
  const auto ids = golden["ids"].get<std::vector<int32_t>>();
  const auto ids_with_special = golden["ids_with_special"].get<std::vector<int32_t>>();
  EXPECT_EQ(tokenizer.decode(ids), golden["decoded"].get<std::string>());
  EXPECT_EQ(tokenizer.decode(ids_with_special), golden["decoded_with_special"].get<std::string>());
  EXPECT_EQ(tokenizer.decode(ids_with_special, true), golden["decoded_skip_special"].get<std::string>());
}

TEST_P(TokenizerGoldenTest, EncodesAsTheOriginal) {
  const auto tokenizer = load_golden(GetParam());
  ASSERT_TRUE(tokenizer) << to_string(tokenizer.error());
  const Json cases = cases_of(GetParam());
  ASSERT_EQ(cases.size(), 207u);
  for (const Json& golden : cases) {
    SCOPED_TRACE(golden["text"].get<std::string>());
    expect_encodes(*tokenizer, golden);
  }
}

TEST_P(TokenizerGoldenTest, DecodesAsTheOriginal) {
  const auto tokenizer = load_golden(GetParam());
  ASSERT_TRUE(tokenizer);
  for (const Json& golden : cases_of(GetParam())) {
    SCOPED_TRACE(golden["text"].get<std::string>());
    expect_decodes(*tokenizer, golden);
  }
}

TEST_P(TokenizerGoldenTest, OffsetsComeWithEveryId) {
  const auto tokenizer = load_golden(GetParam());
  ASSERT_TRUE(tokenizer);
  for (const Json& golden : cases_of(GetParam())) {
    const auto encoding = tokenizer->encode(golden["text"].get<std::string>(), {.with_offsets = true});
    ASSERT_TRUE(encoding);
    EXPECT_EQ(encoding->offsets.size(), encoding->ids.size());
  }
}

class OlderFilesGoldenTest : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(EveryKind, OlderFilesGoldenTest, testing::ValuesIn(tokenizer_test::kOlderTokenizers),
                         [](const auto& param) { return tokenizer_test::test_name(param.param); });

// What Transformers 5.24 makes of tokenizer.model, vocab.json or vocab.txt.
TEST_P(OlderFilesGoldenTest, EncodesAndDecodesAsTheOriginal) {
  const auto tokenizer = AutoTokenizer::from_pretrained(data("tokenizers").append(GetParam()).string());
  ASSERT_TRUE(tokenizer) << to_string(tokenizer.error());
  const Json cases = cases_of(GetParam());
  ASSERT_GE(cases.size(), 50u);
  for (const Json& golden : cases) {
    SCOPED_TRACE(golden["text"].get<std::string>());
    expect_encodes(*tokenizer, golden);
    expect_decodes(*tokenizer, golden);
  }
}

// The tokenizer of the trained model: its text comes back.
TEST(TinyLlamaTokenizerTest, DecodingUndoesEncoding) {
  const auto tokenizer = tokenizer_test::load(data("models/tiny-llama"));
  ASSERT_TRUE(tokenizer) << to_string(tokenizer.error());
  EXPECT_EQ(tokenizer->vocab_size(), 2048u);
  EXPECT_EQ(tokenizer->eos_token_id(), tokenizer->token_to_id("<|endoftext|>"));
  for (const Json& golden : cases_of("gpt2")) {
    const auto& text = golden["text"].get_ref<const std::string&>();
    const auto encoding = tokenizer->encode(text);
    ASSERT_TRUE(encoding);
    EXPECT_EQ(tokenizer->decode(encoding->ids), text);
  }
}

}  // namespace
}  // namespace nibble
