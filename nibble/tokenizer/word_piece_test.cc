#include "nibble/tokenizer/word_piece.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/tokenizer/word_level.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Json word_piece_model(const std::vector<std::string>& tokens) {
  Json vocab = Json::object();
  for (size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = i;
  return {{"vocab", vocab}, {"unk_token", "[UNK]"}, {"max_input_chars_per_word", 6}};
}

template <class Model>
std::vector<std::string> spell_word_piece(const Json& json, std::string_view word) {
  const auto parsed = Model::parse(json);
  if (!parsed) return {to_string(parsed.error())};
  std::vector<ModelToken> tokens;
  if (const Status status = parsed->tokenize(word, tokens); !status) return {to_string(status.error())};
  std::vector<std::string> out;
  for (const ModelToken& token : tokens) out.push_back(*parsed->vocabulary().token(token.id));
  return out;
}

TEST(WordPiece, TakesTheLongestTokenAtEachPlace) {
  const Json json = word_piece_model({"[UNK]", "un", "una", "##aff", "##able", "##ff"});
  EXPECT_THAT(spell_word_piece<WordPieceModel>(json, "unaff"), ElementsAre("una", "##ff"));
  EXPECT_THAT(spell_word_piece<WordPieceModel>(json, "unable"), ElementsAre("[UNK]"));  // "una" leaves "ble"
}

TEST(WordPiece, ATokenWithoutPrefixIsNotFoundInside) {
  EXPECT_THAT(spell_word_piece<WordPieceModel>(word_piece_model({"[UNK]", "a", "b"}), "ab"),
              ElementsAre("[UNK]"));
}

TEST(WordPiece, CountsCharactersNotBytes) {
  const Json json = word_piece_model({"[UNK]", "é", "##é"});
  EXPECT_THAT(spell_word_piece<WordPieceModel>(json, "éééééé"), testing::SizeIs(6));
  EXPECT_THAT(spell_word_piece<WordPieceModel>(json, "ééééééé"), ElementsAre("[UNK]"));
}

TEST(WordPiece, UnkTokenMustBeThere) {
  EXPECT_THAT(spell_word_piece<WordPieceModel>(word_piece_model({"a"}), "a"),
              ElementsAre(HasSubstr("unk_token \"[UNK]\" is not")));
}

TEST(WordLevel, AWordIsATokenOrUnknown) {
  Json json = word_piece_model({"[UNK]", "yes"});
  EXPECT_THAT(spell_word_piece<WordLevelModel>(json, "yes"), ElementsAre("yes"));
  EXPECT_THAT(spell_word_piece<WordLevelModel>(json, "no"), ElementsAre("[UNK]"));
  json["unk_token"] = "<none>";
  EXPECT_THAT(spell_word_piece<WordLevelModel>(json, "no"), ElementsAre(HasSubstr("no token for \"no\"")));
}

}  // namespace
}  // namespace nibble
