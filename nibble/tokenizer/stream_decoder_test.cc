#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/tokenizer/tokenizer_test_support.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

using tokenizer_test::build;
using tokenizer_test::data;
using tokenizer_test::load_golden;
using tokenizer_test::read_json_file;
using tokenizer_test::small_tokenizer;

// All pieces together; each must be whole characters.
std::string stream(const Tokenizer& tokenizer, std::span<const int32_t> ids, bool skip_special_tokens) {
  StreamDecoder decoder(tokenizer, skip_special_tokens);
  std::string all;
  for (const int32_t id : ids) {
    const std::string piece = decoder.push(id);
    EXPECT_TRUE(is_valid_utf8(piece));
    all += piece;
  }
  const std::string rest = decoder.finish();
  EXPECT_TRUE(is_valid_utf8(rest));
  return all + rest;
}

TEST(StreamDecoder, PiecesOfGoldenTextsAddUp) {
  for (const char* name : tokenizer_test::kGoldenTokenizers) {
    const auto tokenizer = load_golden(name);
    ASSERT_TRUE(tokenizer);
    const Json goldens = read_json_file(data("tokenizers") / name / "goldens.json");
    for (const Json& golden : goldens["cases"]) {
      const auto& text = golden["text"].get_ref<const std::string&>();
      if (text.size() > 1000) continue;
      SCOPED_TRACE(std::string(name) + ": " + text);
      const auto ids = golden["ids_with_special"].get<std::vector<int32_t>>();
      EXPECT_EQ(stream(*tokenizer, ids, false), tokenizer->decode(ids, false));
      EXPECT_EQ(stream(*tokenizer, ids, true), tokenizer->decode(ids, true));
    }
  }
}

// Ids that no text would give: half characters, bytes that are no UTF-8, ids of no token.
RC_GTEST_PROP(StreamDecoder, PiecesOfRandomIdsAddUp, ()) {
  static const std::vector<Tokenizer>* const kTokenizers = [] {
    auto* all = new std::vector<Tokenizer>;
    for (const char* name : tokenizer_test::kGoldenTokenizers) all->push_back(load_golden(name).value());
    return all;
  }();
  const Tokenizer& tokenizer = (*kTokenizers)[*rc::gen::inRange<size_t>(0, kTokenizers->size())];
  // Low ids are special tokens and bytes, so they come often.
  const auto limit = static_cast<int32_t>(tokenizer.vocab_size()) + 2;
  const auto ids = *rc::gen::container<std::vector<int32_t>>(
      rc::gen::oneOf(rc::gen::inRange<int32_t>(0, 300), rc::gen::inRange<int32_t>(0, limit)));
  const bool skip = *rc::gen::arbitrary<bool>();
  RC_ASSERT(stream(tokenizer, ids, skip) == tokenizer.decode(ids, skip));
}

TEST(StreamDecoder, CharactersWaitForTheirLastByte) {
  const auto tokenizer = load_golden("gpt2");
  ASSERT_TRUE(tokenizer);
  const std::string grin = "\xF0\x9F\x98\x80";
  const auto ids = tokenizer->encode("h" + grin + "t")->ids;
  ASSERT_GE(ids.size(), 4u);  // the vocabulary has no token for the whole character
  StreamDecoder decoder(*tokenizer, false);
  EXPECT_EQ(decoder.push(ids[0]), "h");
  for (size_t i = 1; i + 2 < ids.size(); ++i) EXPECT_EQ(decoder.push(ids[i]), "");
  EXPECT_EQ(decoder.push(ids[ids.size() - 2]), grin);
  EXPECT_EQ(decoder.push(ids.back()), "t");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, FinishShowsHalfACharacter) {
  const auto tokenizer = load_golden("gpt2");
  ASSERT_TRUE(tokenizer);
  const auto ids = tokenizer->encode("\xF0\x9F\x98\x80")->ids;
  StreamDecoder decoder(*tokenizer, false);
  EXPECT_EQ(decoder.push(ids[0]), "");
  EXPECT_EQ(decoder.finish(), "\xEF\xBF\xBD");
}

TEST(StreamDecoder, SpacesBehindSkippedTokensStay) {
  const auto tokenizer = load_golden("llama2-legacy");
  ASSERT_TRUE(tokenizer);
  std::vector<int32_t> ids = tokenizer->encode("one")->ids;
  ids.push_back(2);  // </s>
  const auto more = tokenizer->encode("two", {.add_special_tokens = false})->ids;
  ids.insert(ids.end(), more.begin(), more.end());
  EXPECT_EQ(stream(*tokenizer, ids, true), "one two");
}

TEST(StreamDecoder, OneWrongByteSpoilsItsRun) {
  Json json = small_tokenizer({"<0x41>", "<0xFF>", "x"});
  json["decoder"] = {{"type", "ByteFallback"}};
  const auto tokenizer = build(json);
  ASSERT_TRUE(tokenizer);
  StreamDecoder decoder(*tokenizer, false);
  EXPECT_EQ(decoder.push(0), "");
  EXPECT_EQ(decoder.push(1), "");
  EXPECT_EQ(decoder.push(2), "\xEF\xBF\xBD\xEF\xBF\xBDx");
}

}  // namespace
}  // namespace nibble
