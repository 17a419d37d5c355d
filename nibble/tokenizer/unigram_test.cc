#include "nibble/tokenizer/unigram.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Scores = std::vector<std::pair<std::string, double>>;

Json unigram_model(const Scores& scores) {
  Json vocab = Json::array();
  for (const auto& [token, score] : scores) vocab.push_back(Json::array({token, score}));
  return {{"type", "Unigram"}, {"vocab", vocab}, {"unk_id", 0}};
}

// Each token with the bytes that it stands for.
std::vector<std::string> spell_unigram(const Json& json, std::string_view word) {
  const auto unigram = UnigramModel::parse(json);
  if (!unigram) return {to_string(unigram.error())};
  std::vector<ModelToken> tokens;
  if (const Status status = unigram->tokenize(word, tokens); !status) return {to_string(status.error())};
  std::vector<std::string> out;
  for (const ModelToken& token : tokens) {
    out.push_back(*unigram->vocabulary().token(token.id) + "=" +
                  std::string(word.substr(token.begin, token.end - token.begin)));
  }
  return out;
}

TEST(Unigram, TheLargestSumWins) {
  const Scores scores = {{"<unk>", 0}, {"a", -1}, {"b", -1}, {"ab", -1.5}, {"abc", -9}, {"c", -1}};
  EXPECT_THAT(spell_unigram(unigram_model(scores), "abc"), ElementsAre("ab=ab", "c=c"));
}

TEST(Unigram, UnknownCharactersThatTouchAreOne) {
  const Scores scores = {{"<unk>", 0}, {"a", -1}};
  EXPECT_THAT(spell_unigram(unigram_model(scores), "axéa"), ElementsAre("a=a", "<unk>=xé", "a=a"));
}

TEST(Unigram, BytesStandForTheWholeUnknownRun) {
  Scores scores = {{"<unk>", 0}, {"a", -1}};
  for (int byte = 0; byte < 256; ++byte) scores.emplace_back(fmt::format("<0x{:02X}>", byte), -20);
  Json json = unigram_model(scores);
  json["byte_fallback"] = true;
  EXPECT_THAT(spell_unigram(json, "aé"), ElementsAre("a=a", "<0xC3>=é", "<0xA9>=é"));
}

TEST(Unigram, WithoutUnkIdAnUnknownCharacterIsAnError) {
  Json json = unigram_model({{"<unk>", 0}, {"a", -1}});
  json["unk_id"] = nullptr;
  EXPECT_THAT(spell_unigram(json, "a"), ElementsAre("a=a"));
  EXPECT_THAT(spell_unigram(json, "x"), ElementsAre(HasSubstr("no token for \"x\"")));
}

TEST(Unigram, FaultsAreNamed) {
  Json json = unigram_model({{"<unk>", 0}});
  json["unk_id"] = 1;
  EXPECT_THAT(spell_unigram(json, "a"), ElementsAre(HasSubstr("unk_id is 1, but \"vocab\" has 1 tokens")));
  json = unigram_model({{"<unk>", 0}});
  json["vocab"].push_back("a");
  EXPECT_THAT(spell_unigram(json, "a"), ElementsAre(HasSubstr("vocab[1]")));
}

// Against all ways to cut the word.
RC_GTEST_PROP(Unigram, NoOtherCutIsBetter, ()) {
  const auto pick = rc::gen::container<std::string>(rc::gen::element('a', 'b', 'c'));
  std::map<std::string, double> scores = {{"<unk>", -9}, {"a", -3}, {"b", -3}, {"c", -3}};
  for (int i = 0; i < 8; ++i) {
    const std::string token = *rc::gen::resize(4, pick);
    if (!token.empty()) scores[token] = -0.25 * *rc::gen::inRange(1, 40);
  }
  const std::string word = *rc::gen::resize(12, pick);
  const auto unigram = UnigramModel::parse(unigram_model(Scores(scores.begin(), scores.end())));
  RC_ASSERT(unigram.has_value());
  std::vector<ModelToken> tokens;
  RC_ASSERT(unigram->tokenize(word, tokens).has_value());
  double sum = 0;
  size_t covered = 0;
  for (const ModelToken& token : tokens) {
    RC_ASSERT(token.begin == covered);
    sum += scores.at(word.substr(token.begin, token.end - token.begin));
    covered = token.end;
  }
  RC_ASSERT(covered == word.size());
  std::vector<double> best(word.size() + 1, -std::numeric_limits<double>::infinity());
  best[0] = 0;
  for (size_t end = 1; end <= word.size(); ++end) {
    for (size_t begin = 0; begin < end; ++begin) {
      const auto token = scores.find(word.substr(begin, end - begin));
      if (token != scores.end()) best[end] = std::max(best[end], best[begin] + token->second);
    }
  }
  RC_ASSERT(sum == best.back());  // multiples of 1/4: exact
}

}  // namespace
}  // namespace nibble
