#include "nibble/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <chrono>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/tokenizer/tokenizer_test_support.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using tokenizer_test::added_token;
using tokenizer_test::ascii_tokens;
using tokenizer_test::build;
using tokenizer_test::load_golden;
using tokenizer_test::small_tokenizer;
using tokenizer_test::spell;

// Characters of ASCII, and the added tokens <s>, <sep> (special) and tool (not special).
Json with_added_tokens() {
  Json json = small_tokenizer(ascii_tokens());
  json["added_tokens"] = Json::array(
      {added_token(95, "<s>"), added_token(96, "<sep>"), added_token(97, "tool", /*special=*/false)});
  return json;
}

TEST(AddedTokens, TheLongestWins) {
  Json json = with_added_tokens();
  json["added_tokens"].push_back(added_token(98, "<s"));
  const auto tokenizer = build(json);
  ASSERT_TRUE(tokenizer) << to_string(tokenizer.error());
  EXPECT_THAT(spell(*tokenizer, "<s><sep><s"), ElementsAre("<s>", "<sep>", "<s"));
  EXPECT_THAT(spell(*tokenizer, "<<s>"), ElementsAre("<", "<s>"));
}

TEST(AddedTokens, StripFlagsTakeTheSpaces) {
  Json json = with_added_tokens();
  json["added_tokens"][0]["lstrip"] = true;
  json["added_tokens"][0]["rstrip"] = true;
  const auto tokenizer = build(json);
  ASSERT_TRUE(tokenizer);
  EXPECT_THAT(spell(*tokenizer, "a  <s> \nb"), ElementsAre("a", "<s>", "b"));
  const auto encoding = tokenizer->encode("a  <s> \nb", {.with_offsets = true});
  EXPECT_EQ(encoding->offsets[1], (std::pair<size_t, size_t>{1, 8}));
}

TEST(AddedTokens, SingleWordsNeedEdges) {
  Json json = with_added_tokens();
  json["added_tokens"][2]["single_word"] = true;
  const auto tokenizer = build(json);
  ASSERT_TRUE(tokenizer);
  EXPECT_THAT(spell(*tokenizer, "tool"), ElementsAre("tool"));
  EXPECT_THAT(spell(*tokenizer, "-tool."), ElementsAre("-", "tool", "."));
  EXPECT_THAT(spell(*tokenizer, "tools"), ElementsAre("t", "o", "o", "l", "s"));
}

TEST(AddedTokens, NormalizedOnesAreFoundInNormalizedText) {
  Json json = with_added_tokens();
  json["normalizer"] = {{"type", "Lowercase"}};
  json["added_tokens"][2]["normalized"] = true;
  const auto tokenizer = build(json);
  ASSERT_TRUE(tokenizer);
  EXPECT_THAT(spell(*tokenizer, "ToOL<S><s>"), ElementsAre("tool", "<", "s", ">", "<s>"));
}

TEST(AddedTokens, LiteralTextHasNoSpecialTokens) {
  const auto tokenizer = build(with_added_tokens());
  ASSERT_TRUE(tokenizer);
  const std::array<TextRange, 1> literal = {TextRange{3, 6}};
  // The first <s> is the template's, the second the user's.
  EXPECT_THAT(spell(*tokenizer, "<s><s>a", {.literal = literal}), ElementsAre("<s>", "<", "s", ">", "a"));
  const std::array<TextRange, 1> whole = {TextRange{0, 100}};
  EXPECT_THAT(spell(*tokenizer, "tool<s>", {.literal = whole}), ElementsAre("tool", "<", "s", ">"));
}

TEST(AddedTokens, ATokenThatReachesIntoLiteralTextIsText) {
  const auto tokenizer = build(with_added_tokens());
  ASSERT_TRUE(tokenizer);
  const std::array<TextRange, 1> literal = {TextRange{0, 2}};
  EXPECT_THAT(spell(*tokenizer, "<s><s>", {.literal = literal}), ElementsAre("<", "s", ">", "<s>"));
  // <s is the user's, <sep> the template's.
  EXPECT_THAT(spell(*tokenizer, "<s<sep>", {.literal = literal}), ElementsAre("<", "s", "<sep>"));
}

// Templates write "<|" + message['role'] + "|>".
TEST(AddedTokens, ATokenAroundLiteralTextIsTheTemplates) {
  const auto tokenizer = build(with_added_tokens());
  ASSERT_TRUE(tokenizer);
  const std::array<TextRange, 1> literal = {TextRange{1, 2}};
  EXPECT_THAT(spell(*tokenizer, "<s>", {.literal = literal}), ElementsAre("<s>"));
}

TEST(AddedTokens, LiteralRangesAreOfTheInputEvenIfItIsNormalized) {
  Json json = with_added_tokens();
  json["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "bbbb"}};
  json["added_tokens"][0]["normalized"] = true;
  const auto tokenizer = build(json);
  ASSERT_TRUE(tokenizer);
  const std::array<TextRange, 1> literal = {TextRange{1, 4}};
  EXPECT_THAT(spell(*tokenizer, "a<s><s>", {.literal = literal}),
              ElementsAre("b", "b", "b", "b", "<", "s", ">", "<s>"));
}

// What a user writes tokenizes as if no special token existed.
RC_GTEST_PROP(AddedTokens, LiteralEqualsATokenizerWithoutThem, ()) {
  Json plain_json = with_added_tokens();
  plain_json["added_tokens"].erase(0);
  plain_json["added_tokens"].erase(0);
  plain_json["added_tokens"][0]["id"] = 95;
  static const Tokenizer with = build(with_added_tokens()).value();
  static const Tokenizer without = build(plain_json).value();
  const auto parts = *rc::gen::container<std::vector<std::string>>(
      rc::gen::element<std::string>("<s>", "<sep>", "tool", "<", "s", ">", " ", "e"));
  std::string text;
  for (const std::string& part : parts) text += part;
  const std::array<TextRange, 1> all = {TextRange{0, text.size()}};
  RC_ASSERT(spell(with, text, {.literal = all}) == spell(without, text));
}

TEST(Tokenizer, InvalidUtf8IsReplaced) {
  const auto tokenizer = load_golden("gpt2");
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer
                ->encode("a\xFF"
                         "b")
                ->ids,
            tokenizer
                ->encode("a\xEF\xBF\xBD"
                         "b")
                ->ids);
  // Literal ranges still mean the same bytes.
  const std::string text = "\xFF<|endoftext|><|endoftext|>";
  const std::array<TextRange, 1> literal = {TextRange{1, 14}};
  const auto encoding = tokenizer->encode(text, {.literal = literal});
  ASSERT_TRUE(encoding);
  EXPECT_EQ(std::count(encoding->ids.begin(), encoding->ids.end(), 0), 1);
  EXPECT_EQ(encoding->ids.back(), 0);
}

TEST(Tokenizer, OffsetsDoNotChangeTheIds) {
  const auto tokenizer = load_golden("mistral-metaspace");
  ASSERT_TRUE(tokenizer);
  const std::string text = "One </s> two\xE2\x96\x81three <s>four";
  EXPECT_EQ(tokenizer->encode(text)->ids, tokenizer->encode(text, {.with_offsets = true})->ids);
}

TEST(Tokenizer, IdsOfNoTokenAreLeftOut) {
  const auto tokenizer = load_golden("gpt2");
  ASSERT_TRUE(tokenizer);
  std::vector<int32_t> ids = tokenizer->encode("hi")->ids;
  ids.insert(ids.begin(), {-1, 1'000'000, 2'147'483'647});
  EXPECT_EQ(tokenizer->decode(ids), "hi");
  EXPECT_FALSE(tokenizer->id_to_token(-1));
  EXPECT_FALSE(tokenizer->is_special(1'000'000));
}

TEST(Tokenizer, KnowsItsSpecialTokens) {
  const auto tokenizer = load_golden("qwen2");
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->vocab_size(), 1302u);
  EXPECT_EQ(tokenizer->token_to_id("<tool_call>"), 1300);
  EXPECT_EQ(tokenizer->id_to_token(2), "<|im_end|>");
  EXPECT_TRUE(tokenizer->is_special(2));
  EXPECT_FALSE(tokenizer->is_special(1300));
  EXPECT_EQ(tokenizer->eos_token_id(), 2);
  EXPECT_FALSE(tokenizer->bos_token_id());
}

TEST(Tokenizer, WithoutADecoderTokensAreJoinedBySpaces) {
  Json json = small_tokenizer({"a", "b"});
  json["decoder"] = nullptr;
  const auto tokenizer = build(json);
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->decode(std::array<int32_t, 2>{0, 1}), "a b");
}

TEST(Tokenizer, LlamaWithoutPostProcessorAddsBosAsItsConfigurationSays) {
  Json json = small_tokenizer({"<s>", "</s>", "a"});
  Json config = {
      {"tokenizer_class", "LlamaTokenizer"}, {"bos_token", "<s>"}, {"eos_token", {{"content", "</s>"}}}};
  EXPECT_EQ(build(json, config)->encode("a")->ids, (std::vector<int32_t>{0, 2}));
  config["add_eos_token"] = true;
  EXPECT_EQ(build(json, config)->encode("a")->ids, (std::vector<int32_t>{0, 2, 1}));
  EXPECT_EQ(build(json, config)->encode("a", {.add_special_tokens = false})->ids, (std::vector<int32_t>{2}));
  config["add_bos_token"] = false;
  config["add_eos_token"] = false;
  EXPECT_EQ(build(json, config)->encode("a")->ids, (std::vector<int32_t>{2}));
  config["tokenizer_class"] = "GPT2Tokenizer";
  config["add_bos_token"] = true;
  EXPECT_EQ(build(json, config)->encode("a")->ids, (std::vector<int32_t>{2}));
}

TEST(Tokenizer, AddedTokensWithoutAPlaceGetTheNextOne) {
  // As the original numbers them, whatever the file says; the ids of the file are only checked.
  Json json = small_tokenizer({"a", "b"});
  json["added_tokens"] = Json::array({added_token(7, "<x>")});
  const auto tokenizer = build(json);
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->token_to_id("<x>"), 2);
}

TEST(Tokenizer, LongTextsAreLinear) {
  for (const char* name : {"llama3", "qwen2", "smollm2", "llama2-legacy"}) {
    const auto tokenizer = load_golden(name);
    ASSERT_TRUE(tokenizer);
    for (const char* unit : {"a", " ", "\n", "the cat ", "\xE4\xB8\xAD", "0", "<s>"}) {
      std::string text;
      while (text.size() < 300'000) text += unit;
      const auto start = std::chrono::steady_clock::now();
      const auto encoding = tokenizer->encode(text);
      ASSERT_TRUE(encoding) << to_string(encoding.error());
      EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10)) << name << " " << unit;
    }
  }
}

}  // namespace
}  // namespace nibble
