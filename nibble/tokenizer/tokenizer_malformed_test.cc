// Broken tokenizers are refused with a message that names the cause.

#include <chrono>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/tokenizer/tokenizer_test_support.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

using testing::HasSubstr;
using tokenizer_test::build;
using tokenizer_test::data;
using tokenizer_test::load;
using tokenizer_test::small_tokenizer;

struct Malformed {
  const char* folder;
  const char* message;  // a part of it
};

class MalformedTokenizerTest : public testing::TestWithParam<Malformed> {};

INSTANTIATE_TEST_SUITE_P(
    EveryFixture, MalformedTokenizerTest,
    testing::Values(Malformed{"added-id-clash", R"(the token "<x>" has the id 7, which belongs to "d")"},
                    Malformed{"bad-regex", R"("(a|b" is not valid: missing closing parenthesis)"},
                    Malformed{"deep-sequence", "nested deeper than"}, Malformed{"huge-id", "4294967295"},
                    Malformed{"id-2pow40", "1099511627776"}, Malformed{"lone-surrogate", "not valid JSON"},
                    Malformed{"merge-cyclic", "merges[2]: a merge with the empty token"},
                    Malformed{"merge-part-unknown", R"(of the merge of "t" and)"},
                    Malformed{"merge-three", "a merge must name two tokens"},
                    Malformed{"merge-unknown",
                              R"("qz" of the merge of "q" and "z" is not in the vocabulary)"},
                    Malformed{"negative-id", "the id -1"}, Malformed{"same-id", "both have the id 5"},
                    Malformed{"template-unknown", R"("single" uses "<zz>")"},
                    Malformed{"truncated", "not valid JSON"},
                    Malformed{"unk-missing", R"(unk_token "<nope>" is not in the vocabulary)"},
                    Malformed{"unknown-pre-tokenizer", R"("ByteLevell" is not supported)"},
                    Malformed{"unknown-type", R"(a model of type "BPEE" is not supported)"}),
    [](const auto& param) { return tokenizer_test::test_name(param.param.folder); });

TEST_P(MalformedTokenizerTest, IsRefusedByName) {
  const auto tokenizer = load(data("malformed") / (std::string("tokenizer-") + GetParam().folder));
  ASSERT_FALSE(tokenizer);
  EXPECT_THAT(to_string(tokenizer.error()), HasSubstr(GetParam().message));
  EXPECT_THAT(tokenizer.error().where, testing::StartsWith("tokenizer.json"));
}

TEST(MalformedTokenizer, TheControlIsAccepted) {
  const auto tokenizer = load(data("malformed/valid-tokenizer"));
  ASSERT_TRUE(tokenizer) << to_string(tokenizer.error());
  EXPECT_TRUE(tokenizer->encode("the quick"));
}

TEST(MalformedTokenizer, ACatastrophicRegexEndsWithAnError) {
  const auto tokenizer = load(data("malformed/tokenizer-regex-catastrophic"));
  ASSERT_TRUE(tokenizer) << to_string(tokenizer.error());
  const auto start = std::chrono::steady_clock::now();
  const auto encoding = tokenizer->encode(std::string(5000, 'a') + "b");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  ASSERT_FALSE(encoding);
  EXPECT_THAT(encoding.error().what, HasSubstr("(a+)+$"));
  EXPECT_TRUE(tokenizer->encode("harmless"));
}

// Every value of tokenizer.json, replaced by one of another type: an error or not, never a crash.
void break_everywhere(const Json& whole, Json& part, int depth) {
  if (depth > 6) return;
  for (Json& child : part) {
    for (const Json& wrong :
         {Json(), Json(-1), Json("x"), Json::array({1}), Json::object(), Json(true), Json(1e300)}) {
      const Json good = std::exchange(child, wrong);
      const auto tokenizer = build(whole);
      if (tokenizer) {
        const auto encoding = tokenizer->encode("ab <s> c");
        EXPECT_TRUE(!encoding || is_valid_utf8(tokenizer->decode(encoding->ids)));
      } else {
        EXPECT_FALSE(tokenizer.error().what.empty());
      }
      child = good;
    }
    break_everywhere(whole, child, depth + 1);
  }
}

TEST(MalformedTokenizer, WrongTypesAnywhereDoNotCrash) {
  Json json = small_tokenizer({"a", "b", "ab", "<s>", "<0x41>"}, {"a b"});
  json["added_tokens"] = Json::array({tokenizer_test::added_token(3, "<s>")});
  json["normalizer"] = {{"type", "Sequence"},
                        {"normalizers",
                         {{{"type", "Prepend"}, {"prepend", "a"}},
                          {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "b"}},
                          {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}}}}};
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "a+"}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}},
        {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "first"}, {"split", true}}}}};
  json["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"pair", Json::array()},
      {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {3}}, {"tokens", {"<s>"}}}}}}};
  json["decoder"] = {
      {"type", "Sequence"},
      {"decoders",
       {{{"type", "ByteFallback"}}, {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 1}}}}};
  ASSERT_TRUE(build(json)) << to_string(build(json).error());
  break_everywhere(json, json, 0);
}

TEST(MalformedTokenizer, DropoutIsRefused) {
  Json json = small_tokenizer({"a"});
  json["model"]["dropout"] = 0.1;
  EXPECT_THAT(to_string(build(json).error()), HasSubstr("encoding would be random"));
  json["model"]["dropout"] = 0.0;
  EXPECT_TRUE(build(json));
}

TEST(MalformedTokenizer, UnknownModelsNameWhatIsSupported) {
  Json json = small_tokenizer({"a"});
  json["model"]["type"] = "Transducer";
  const auto tokenizer = build(json);
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(tokenizer.error().fix, "Supported: BPE, Unigram, WordPiece, WordLevel.");
}

TEST(MalformedTokenizer, ANormalizerCannotMakeHugeTexts) {
  Json json = small_tokenizer({"a"});
  json["normalizer"] = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(4096, 'a')}};
  const auto tokenizer = build(json);
  ASSERT_TRUE(tokenizer);
  const auto encoding = tokenizer->encode(std::string(1'000'000, 'a'));
  ASSERT_FALSE(encoding);
  EXPECT_EQ(encoding.error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
