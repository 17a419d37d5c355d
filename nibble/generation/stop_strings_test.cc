#include "nibble/generation/stop_strings.h"

#include <algorithm>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace nibble {
namespace {

TEST(StopStrings, TextWithoutAnyPassesAtOnce) {
  StopStringFilter filter({});
  EXPECT_EQ(filter.push("abc"), "abc");
  EXPECT_EQ(filter.finish(), "");
}

TEST(StopStrings, WhatMayBecomeOneIsHeldBack) {
  StopStringFilter filter({"STOP"});
  EXPECT_EQ(filter.push("say ST"), "say ");
  EXPECT_EQ(filter.push("O"), "");
  EXPECT_EQ(filter.push("NE"), "STONE");
  EXPECT_EQ(filter.push("S"), "");
  EXPECT_EQ(filter.finish(), "S");
  EXPECT_FALSE(filter.stopped());
}

TEST(StopStrings, TextBeforeItIsShownAndNothingAfter) {
  StopStringFilter filter({"END"});
  EXPECT_EQ(filter.push("one E"), "one ");
  EXPECT_EQ(filter.push("ND two"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.push("three"), "");
  EXPECT_EQ(filter.finish(), "");
}

TEST(StopStrings, OneThatIsCompleteFirstCounts) {
  StopStringFilter filter({"abcd", "bc"});
  EXPECT_EQ(filter.push("xabcd"), "xa");
  EXPECT_TRUE(filter.stopped());
}

TEST(StopStrings, OfThoseThatEndTogetherTheLongestCounts) {
  StopStringFilter filter({"bc", "abc"});
  EXPECT_EQ(filter.push("xabc"), "x");
}

TEST(StopStrings, RepeatedBeginningsAreNotMissed) {
  StopStringFilter filter({"aab"});
  EXPECT_EQ(filter.push("a"), "");
  EXPECT_EQ(filter.push("a"), "");
  EXPECT_EQ(filter.push("a"), "a");
  EXPECT_EQ(filter.push("b"), "");
  EXPECT_TRUE(filter.stopped());
}

TEST(StopStrings, HeldTextNeverEndsInsideACharacter) {
  // "é" is C3 A9; the (invalid) stop string begins with its second byte.
  StopStringFilter filter({"\xA9zz"});
  EXPECT_EQ(filter.push("caf\xC3\xA9"), "caf");
  EXPECT_EQ(filter.push("!"), "\xC3\xA9!");
}

// The text that is shown does not depend on how it is cut into pieces, and is what a search in the
// whole text gives.
RC_GTEST_PROP(StopStringsProperty, AgreesWithASearchInTheWholeText, ()) {
  const auto letters = [](size_t most) {
    return rc::gen::resize(static_cast<int>(most),
                           rc::gen::container<std::string>(rc::gen::element('a', 'b')));
  };
  const auto pieces = *rc::gen::container<std::vector<std::string>>(letters(6));
  const auto stops = *rc::gen::container<std::vector<std::string>>(2, rc::gen::nonEmpty(letters(5)));
  std::string text;
  for (const std::string& piece : pieces) text += piece;

  std::string expected = text;
  bool found = false;
  for (size_t end = 1; end <= text.size() && !found; ++end) {
    for (size_t begin = 0; begin < end && !found; ++begin) {
      const std::string part = text.substr(begin, end - begin);
      if (std::find(stops.begin(), stops.end(), part) == stops.end()) continue;
      expected = text.substr(0, begin);
      found = true;
    }
  }

  StopStringFilter filter(stops);
  std::string shown;
  for (const std::string& piece : pieces) {
    shown += filter.push(piece);
    RC_ASSERT(expected.starts_with(shown));
  }
  shown += filter.finish();
  RC_ASSERT(shown == expected);
  RC_ASSERT(filter.stopped() == found);
}

}  // namespace
}  // namespace nibble
