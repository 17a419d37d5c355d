#include "nibble/tokenizer/bpe.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace nibble {
namespace {

using testing::ElementsAre;

Json bpe_model(const std::vector<std::string>& tokens, const std::vector<std::string>& merges) {
  Json vocab = Json::object();
  for (size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = i;
  return {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
}

// Spellings of the tokens; the bytes that each covers must add up.
std::vector<std::string> spell_bpe(const Json& json, std::string_view word) {
  const auto bpe = BpeModel::parse(json);
  if (!bpe) return {to_string(bpe.error())};
  std::vector<ModelToken> tokens;
  EXPECT_TRUE(bpe->tokenize(word, tokens));
  std::vector<std::string> out;
  for (const ModelToken& token : tokens) out.push_back(*bpe->vocabulary().token(token.id));
  return out;
}

TEST(Bpe, TheLowestRankGoesFirst) {
  EXPECT_THAT(spell_bpe(bpe_model({"a", "b", "c", "ab", "bc"}, {"b c", "a b"}), "abc"),
              ElementsAre("a", "bc"));
  EXPECT_THAT(spell_bpe(bpe_model({"a", "b", "c", "ab", "bc"}, {"a b", "b c"}), "abc"),
              ElementsAre("ab", "c"));
}

TEST(Bpe, MergesMayBePairs) {
  Json json = bpe_model({"a", "b", "ab"}, {});
  json["merges"] = Json::array({Json::array({"a", "b"})});
  EXPECT_THAT(spell_bpe(json, "ab"), ElementsAre("ab"));
}

TEST(Bpe, EqualPairsMergeFromTheLeft) {
  EXPECT_THAT(spell_bpe(bpe_model({"a", "aa"}, {"a a"}), "aaa"), ElementsAre("aa", "a"));
}

TEST(Bpe, UnknownCharactersAreLostWithoutUnkToken) {
  EXPECT_THAT(spell_bpe(bpe_model({"a", "b", "ab"}, {"a b"}), "axb"), ElementsAre("ab"));
}

TEST(Bpe, UnkTokensFuseOnlyOnRequest) {
  Json json = bpe_model({"a", "<unk>"}, {});
  json["unk_token"] = "<unk>";
  EXPECT_THAT(spell_bpe(json, "axya"), ElementsAre("a", "<unk>", "<unk>", "a"));
  json["fuse_unk"] = true;
  EXPECT_THAT(spell_bpe(json, "axya"), ElementsAre("a", "<unk>", "a"));
}

TEST(Bpe, ByteFallbackNeedsAllBytes) {
  Json json = bpe_model({"a", "<unk>", "<0xC3>", "<0xA9>"}, {});
  json["unk_token"] = "<unk>";
  json["byte_fallback"] = true;
  EXPECT_THAT(spell_bpe(json, "a\xC3\xA9"), ElementsAre("a", "<0xC3>", "<0xA9>"));
  EXPECT_THAT(spell_bpe(json, "a\xC3\xA8"), ElementsAre("a", "<unk>"));
}

TEST(Bpe, IgnoreMergesTakesWholeWords) {
  Json json = bpe_model({"a", "b", "c", "abc"}, {});
  EXPECT_THAT(spell_bpe(json, "abc"), ElementsAre("a", "b", "c"));
  json["ignore_merges"] = true;
  EXPECT_THAT(spell_bpe(json, "abc"), ElementsAre("abc"));
}

TEST(Bpe, PrefixAndSuffixMarkTheInsideAndTheEnd) {
  Json json = bpe_model({"a", "##b", "##c</w>", "ab", "abc</w>"}, {"a ##b", "ab ##c</w>"});
  json["continuing_subword_prefix"] = "##";
  json["end_of_word_suffix"] = "</w>";
  EXPECT_THAT(spell_bpe(json, "abc"), ElementsAre("abc</w>"));
}

// Joins the leftmost of the lowest-ranked pairs until none is left: the definition, in O(n^2).
std::vector<std::string> merge_slowly(std::vector<std::string> parts,
                                      const std::vector<std::string>& merges) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t i = 0; i < merges.size(); ++i) {
    const size_t space = merges[i].find(' ');
    ranks[{merges[i].substr(0, space), merges[i].substr(space + 1)}] = i;
  }
  while (true) {
    size_t best = std::numeric_limits<size_t>::max();
    size_t at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto rank = ranks.find({parts[i], parts[i + 1]});
      if (rank != ranks.end() && rank->second < best) best = rank->second, at = i;
    }
    if (best == std::numeric_limits<size_t>::max()) return parts;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

// As training makes them: every merge joins two tokens that exist, into one that does not.
RC_GTEST_PROP(Bpe, HeapAndDefinitionAgree, ()) {
  std::vector<std::string> tokens = {"a", "b", "c"};
  std::vector<std::string> merges;
  for (int i = *rc::gen::inRange(0, 12); i > 0; --i) {
    const std::string left = *rc::gen::elementOf(tokens);
    const std::string right = *rc::gen::elementOf(tokens);
    if (std::find(tokens.begin(), tokens.end(), left + right) != tokens.end()) continue;
    merges.push_back(left + " " + right);
    tokens.push_back(left + right);
  }
  const auto word = *rc::gen::container<std::string>(rc::gen::element('a', 'b', 'c'));
  std::vector<std::string> letters;
  for (const char c : word) letters.emplace_back(1, c);
  RC_ASSERT(spell_bpe(bpe_model(tokens, merges), word) == merge_slowly(letters, merges));
}

TEST(Bpe, AMegabyteOfOneCharacterIsFast) {
  // a, aa, aaaa, ... 2^19 a's.
  std::vector<std::string> tokens = {"a"};
  std::vector<std::string> merges;
  for (int i = 0; i < 19; ++i) {
    merges.push_back(tokens.back() + " " + tokens.back());
    tokens.push_back(tokens.back() + tokens.back());
  }
  const auto bpe = BpeModel::parse(bpe_model(tokens, merges));
  ASSERT_TRUE(bpe) << to_string(bpe.error());
  const std::string word(size_t{1} << 20, 'a');
  const auto start = std::chrono::steady_clock::now();
  std::vector<ModelToken> out;
  EXPECT_TRUE(bpe->tokenize(word, out));
  // 0.3 s on an idle core; the rest is for busy machines and sanitizers.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].id, 19);
  EXPECT_EQ(out[1].end, word.size());
}

}  // namespace
}  // namespace nibble
