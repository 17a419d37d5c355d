#include "nibble/tokenizer/pre_tokenizers.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

using testing::ElementsAre;

std::vector<std::string> cut(const Json& json, std::string text) {
  const auto pre_tokenizer = PreTokenizer::parse(json);
  if (!pre_tokenizer) return {to_string(pre_tokenizer.error())};
  std::vector<Piece> pieces;
  pieces.emplace_back(AlignedText(std::move(text), /*track=*/true), Piece::kText);
  const Status applied = pre_tokenizer->apply(pieces);
  if (!applied) return {to_string(applied.error())};
  std::vector<std::string> out;
  for (const Piece& piece : pieces) out.push_back(piece.text.text());
  return out;
}

Json split(std::string_view behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", behavior}, {"invert", invert}};
}

TEST(PreTokenizers, BehaviorsOfSplit) {
  const std::string text = "the-final--countdown";
  EXPECT_THAT(cut(split("Removed"), text), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(cut(split("Isolated"), text), ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(cut(split("MergedWithPrevious"), text), ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(cut(split("MergedWithNext"), text), ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(cut(split("Contiguous"), text), ElementsAre("the", "-", "final", "--", "countdown"));
  EXPECT_THAT(cut(split("Removed", /*invert=*/true), text), ElementsAre("-", "-", "-"));
}

TEST(PreTokenizers, DigitsAloneOrTogether) {
  EXPECT_THAT(cut({{"type", "Digits"}, {"individual_digits", true}}, "a12b"),
              ElementsAre("a", "1", "2", "b"));
  EXPECT_THAT(cut({{"type", "Digits"}, {"individual_digits", false}}, "a12b"), ElementsAre("a", "12", "b"));
}

TEST(PreTokenizers, WhitespaceKeepsWordsAndPunctuation) {
  EXPECT_THAT(cut({{"type", "Whitespace"}}, "Hey, you_2  !?"), ElementsAre("Hey", ",", "you_2", "!?"));
  EXPECT_THAT(cut({{"type", "WhitespaceSplit"}}, "Hey, you  !?"), ElementsAre("Hey,", "you", "!?"));
  EXPECT_THAT(cut({{"type", "Punctuation"}}, "Hey, you!"), ElementsAre("Hey", ",", " you", "!"));
}

TEST(PreTokenizers, BertCutsAtSpacesAndPunctuation) {
  EXPECT_THAT(cut({{"type", "BertPreTokenizer"}}, " don't  stop。"),
              ElementsAre("don", "'", "t", "stop", "。"));
}

TEST(PreTokenizers, OneCharacterOrAFixedNumberOfThem) {
  EXPECT_THAT(cut({{"type", "CharDelimiterSplit"}, {"delimiter", "é"}}, "aébéé"), ElementsAre("a", "b"));
  EXPECT_THAT(cut({{"type", "FixedLength"}, {"length", 2}}, "éabéc"), ElementsAre("éa", "bé", "c"));
  EXPECT_THAT(cut({{"type", "FixedLength"}, {"length", 0}}, "a"),
              ElementsAre(testing::HasSubstr("\"length\" is 0")));
}

TEST(PreTokenizers, UnicodeScriptsCutsWhereTheScriptChanges) {
  EXPECT_THAT(cut({{"type", "UnicodeScripts"}}, " どこで生れ。Yes мир  "),
              ElementsAre(" どこで生れ", "。", "Yes ", "мир  "));
  EXPECT_THAT(cut({{"type", "UnicodeScripts"}}, "  "), ElementsAre("  "));
}

TEST(PreTokenizers, MetaspaceMarksWordBeginnings) {
  const Json always = {
      {"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "always"}, {"split", true}};
  EXPECT_THAT(cut(always, "a b"), ElementsAre("_a", "_b"));
  Json never = always;
  never["prepend_scheme"] = "never";
  EXPECT_THAT(cut(never, "a b"), ElementsAre("a", "_b"));
}

TEST(PreTokenizers, ByteLevelWritesBytesAsCharacters) {
  const Json json = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}};
  EXPECT_THAT(cut(json, "it's \xC3\xA9"), ElementsAre("\xC4\xA0it", "'s", "\xC4\xA0\xC3\x83\xC2\xA9"));
}

TEST(PreTokenizers, PiecesKnowWhereTheyCameFrom) {
  const auto pre_tokenizer = PreTokenizer::parse({{"type", "Metaspace"},
                                                  {"replacement", "\xE2\x96\x81"},
                                                  {"prepend_scheme", "always"},
                                                  {"split", true}});
  ASSERT_TRUE(pre_tokenizer);
  std::vector<Piece> pieces;
  pieces.emplace_back(AlignedText("ab c", true), Piece::kText);
  ASSERT_TRUE(pre_tokenizer->apply(pieces));
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[0].text.input_range(0, pieces[0].text.text().size()), (std::pair<size_t, size_t>{0, 2}));
  EXPECT_EQ(pieces[1].text.input_range(0, pieces[1].text.text().size()), (std::pair<size_t, size_t>{2, 4}));
}

}  // namespace
}  // namespace nibble
