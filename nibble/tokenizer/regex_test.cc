#include "nibble/tokenizer/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// The matches of a pattern, without what lies between them.
std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  const auto regex = Regex::compile(pattern);
  if (!regex) return {to_string(regex.error())};
  std::vector<Span> spans;
  const Status found = regex->find_all(text, spans);
  if (!found) return {to_string(found.error())};
  std::vector<std::string> out;
  size_t covered = 0;
  for (const Span& span : spans) {
    EXPECT_EQ(span.begin, covered);
    covered = span.end;
    if (span.matched) out.emplace_back(text.substr(span.begin, span.end - span.begin));
  }
  EXPECT_EQ(covered, text.size());
  return out;
}

// Each expectation is what Oniguruma finds.
TEST(Regex, CountedRepetitionWithPlusIsNotPossessive) {
  EXPECT_THAT(matches(R"(\d{1,3}+)", "12345678"), ElementsAre("12345678"));
  EXPECT_THAT(matches(R"(\d{2}?)", "123"), ElementsAre("12", ""));
}

TEST(Regex, CountsMayLackTheLowerBound) { EXPECT_THAT(matches("a{,2}b", "aaab b"), ElementsAre("aab", "b")); }

TEST(Regex, BracesThatAreNoCountAreText) {
  EXPECT_THAT(matches("a{x}|b{", "a{x}b{"), ElementsAre("a{x}", "b{"));
}

TEST(Regex, DollarMatchesAtEveryLineEnd) {
  EXPECT_THAT(matches(R"(\s+$)", "a \nb  "), ElementsAre(" ", "  "));
}

TEST(Regex, TheMongolianVowelSeparatorIsNoSpace) {
  EXPECT_THAT(matches(R"(\s)", "\xE1\xA0\x8E"), IsEmpty());
  EXPECT_THAT(matches(R"([^\s])", "\xE1\xA0\x8E"), ElementsAre("\xE1\xA0\x8E"));
  EXPECT_THAT(matches(R"(\s)", "\xE3\x80\x80"), ElementsAre("\xE3\x80\x80"));  // ideographic space
}

TEST(Regex, MarksAreWordCharacters) {
  EXPECT_THAT(matches(R"(\w+)", "e\xCC\x81 a"), ElementsAre("e\xCC\x81", "a"));
}

TEST(Regex, ClassesNestAndIntersect) {
  EXPECT_THAT(matches("[a-c[0-9]]+", "ab12-c"), ElementsAre("ab12", "c"));
  EXPECT_THAT(matches("[^a-c[0-9]]+", "ab12-+c"), ElementsAre("-+"));
  EXPECT_THAT(matches(R"([\p{L}&&[^\p{Han}]]+)",
                      "ab\xE4\xB8\xAD"
                      "c"),
              ElementsAre("ab", "c"));
  EXPECT_THAT(matches(R"([^\S\n]+)", "a \t\n b"), ElementsAre(" \t", " "));
  EXPECT_THAT(matches("[]a]+", "a]b"), ElementsAre("a]"));
}

TEST(Regex, ScriptsAreOfTheCharacterItself) {
  // U+3001 is used with Han, but belongs to no script.
  EXPECT_THAT(matches(R"(\p{Han}+)", "\xE4\xB8\xAD\xE3\x80\x81"), ElementsAre("\xE4\xB8\xAD"));
}

TEST(Regex, LongNamesAndEscapesOfOniguruma) {
  EXPECT_THAT(matches(R"(\p{Letter}+)", "ab1"), ElementsAre("ab"));
  EXPECT_THAT(matches(R"(\p{^L}+)", "ab12"), ElementsAre("12"));
  EXPECT_THAT(matches(R"(\u0041\h)", "AF"), ElementsAre("AF"));
  EXPECT_THAT(matches("(?m:a.)", "a\n"), ElementsAre("a\n"));
}

TEST(Regex, CaseFoldingCrossesAscii) {
  EXPECT_THAT(matches("(?i:'s)", "'S '\xC5\xBF"), ElementsAre("'S", "'\xC5\xBF"));  // long s
}

TEST(Regex, EmptyMatchesDirectlyBehindAMatchDoNotCount) {
  EXPECT_THAT(matches("x*", "axb"), ElementsAre("", "x", ""));
}

TEST(Regex, FaultsAreErrors) {
  EXPECT_FALSE(Regex::compile("(a"));
  EXPECT_FALSE(Regex::compile("[a"));
  EXPECT_FALSE(Regex::compile(R"(\p{Nonsense})"));
  EXPECT_FALSE(Regex::compile(std::string(200, '[')));
  EXPECT_FALSE(Regex::compile("\\"));
}

TEST(Regex, LongRunsNeedNoStack) {
  const std::string run(1'000'000, 'a');
  EXPECT_THAT(matches(R"([^\r\n\p{L}\p{N}]?\p{L}+|\s+(?!\S)|\s+)", run), ElementsAre(run));
  const std::string spaces(1'000'000, ' ');
  EXPECT_THAT(matches(R"(\s+(?!\S)|\s+)", spaces + "x"), ElementsAre(spaces.substr(1), " "));
}

}  // namespace
}  // namespace nibble
