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

Json model(const std::vector<std::string>& tokens) {
  Json vocab = Json::object();
  for (size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = i;
  return {{"vocab", vocab}, {"unk_token", "[UNK]"}, {"max_input_chars_per_word", 6}};
}

template <class Model>
std::vector<std::string> spell(const Json& json, std::string_view word) {
  const auto parsed = Model::parse(json);
  if (!parsed) return {to_string(parsed.error())};
  std::vector<ModelToken> tokens;
  if (const Status status = parsed->tokenize(word, tokens); !status) return {to_string(status.error())};
  std::vector<std::string> out;
  for (const ModelToken& token : tokens) out.push_back(*parsed->vocabulary().token(token.id));
  return out;
}

TEST(WordPiece, TakesTheLongestTokenAtEachPlace) {
  const Json json = model({"[UNK]", "un", "una", "##aff", "##able", "##ff"});
  EXPECT_THAT(spell<WordPieceModel>(json, "unaff"), ElementsAre("una", "##ff"));
  EXPECT_THAT(spell<WordPieceModel>(json, "unable"), ElementsAre("[UNK]"));  // "una" leaves "ble"
}

TEST(WordPiece, ATokenWithoutPrefixIsNotFoundInside) {
  EXPECT_THAT(spell<WordPieceModel>(model({"[UNK]", "a", "b"}), "ab"), ElementsAre("[UNK]"));
}

TEST(WordPiece, CountsCharactersNotBytes) {
  const Json json = model({"[UNK]", "é", "##é"});
  EXPECT_THAT(spell<WordPieceModel>(json, "éééééé"), testing::SizeIs(6));
  EXPECT_THAT(spell<WordPieceModel>(json, "ééééééé"), ElementsAre("[UNK]"));
}

TEST(WordPiece, UnkTokenMustBeThere) {
  EXPECT_THAT(spell<WordPieceModel>(model({"a"}), "a"), ElementsAre(HasSubstr("unk_token \"[UNK]\" is not")));
}

TEST(WordLevel, AWordIsATokenOrUnknown) {
  Json json = model({"[UNK]", "yes"});
  EXPECT_THAT(spell<WordLevelModel>(json, "yes"), ElementsAre("yes"));
  EXPECT_THAT(spell<WordLevelModel>(json, "no"), ElementsAre("[UNK]"));
  json["unk_token"] = "<none>";
  EXPECT_THAT(spell<WordLevelModel>(json, "no"), ElementsAre(HasSubstr("no token for \"no\"")));
}

}  // namespace
}  // namespace nibble
