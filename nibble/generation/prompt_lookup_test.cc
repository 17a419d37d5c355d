#include "nibble/generation/prompt_lookup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<int32_t> draft_of(const std::vector<int32_t>& sequence, size_t count) {
  std::vector<int32_t> draft = {99};
  look_up_draft(sequence, count, draft);
  return draft;
}

TEST(PromptLookup, FindsNothingWhereNothingRepeats) {
  EXPECT_THAT(draft_of({}, 4), IsEmpty());
  EXPECT_THAT(draft_of({1}, 4), IsEmpty());
  EXPECT_THAT(draft_of({1, 2, 3, 4}, 4), IsEmpty());
  EXPECT_THAT(draft_of({1, 2, 1}, 0), IsEmpty());
}

TEST(PromptLookup, PrefersTheLongestMatch) {
  // After "2 3 4" came 7, after "8 4" came 6.
  EXPECT_THAT(draft_of({2, 3, 4, 7, 8, 4, 6, 2, 3, 4}, 2), ElementsAre(7, 8));
  // Two tokens, and then only one.
  EXPECT_THAT(draft_of({3, 4, 7, 8, 4, 6, 5, 3, 4}, 1), ElementsAre(7));
  EXPECT_THAT(draft_of({4, 7, 8, 4, 6, 5, 3, 4}, 1), ElementsAre(6));
}

TEST(PromptLookup, PrefersTheLatestOfEqualMatches) {
  EXPECT_THAT(draft_of({1, 2, 3, 5, 1, 2, 3, 6, 1, 2, 3}, 3), ElementsAre(6, 1, 2));
}

TEST(PromptLookup, FollowsALoopRound) {
  EXPECT_THAT(draft_of({9, 1, 2, 1, 2, 1}, 5), ElementsAre(2, 1, 2, 1, 2));
  EXPECT_THAT(draft_of({7, 7}, 3), ElementsAre(7, 7, 7));
}

}  // namespace
}  // namespace nibble
