#include "nibble/report/first_difference.h"

#include <gtest/gtest.h>

namespace nibble::report {
namespace {

TEST(FirstDifference, SplitsAtTheFirstWordThatDiffers) {
  const FirstDifference parts = first_difference("four bits make a nibble", "four bits are a nibble");
  EXPECT_EQ(parts.same, "four bits ");
  EXPECT_EQ(parts.different, "are");
  EXPECT_EQ(parts.rest, " a nibble");
  EXPECT_EQ(parts.word, 3u);
  EXPECT_FALSE(parts.identical);
}

TEST(FirstDifference, SpacesMakeNoDifference) {
  EXPECT_TRUE(first_difference("a b", " a\n b ").identical);
  EXPECT_TRUE(first_difference("", "  ").identical);
}

TEST(FirstDifference, ATextThatStopsEarlyHasNoDifferentWord) {
  const FirstDifference parts = first_difference("red, yellow and blue", "red, yellow");
  EXPECT_FALSE(parts.identical);
  EXPECT_EQ(parts.same, "red, yellow");
  EXPECT_EQ(parts.different, "");
  EXPECT_EQ(parts.word, 3u);
  EXPECT_EQ(first_difference("word", "").word, 1u);
}

TEST(FirstDifference, ATextThatGoesOnDiffersInTheFirstWordMore) {
  EXPECT_EQ(first_difference("red", "red blue").different, "blue");
}

TEST(FirstDifference, ChineseCharactersAreWords) {
  const FirstDifference parts = first_difference("四位是半字节", "四位为半字节");
  EXPECT_EQ(parts.same, "四位");
  EXPECT_EQ(parts.different, "为");
  EXPECT_EQ(parts.rest, "半字节");
}

TEST(FirstDifference, SurvivesInvalidUtf8) {
  EXPECT_EQ(first_difference("a", "\x80\x80").different, "\x80\x80");
  EXPECT_EQ(first_difference("a", "\xe4").different, "\xe4");
}

}  // namespace
}  // namespace nibble::report
