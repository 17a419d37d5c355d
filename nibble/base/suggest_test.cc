#include "nibble/base/suggest.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace nibble {
namespace {

TEST(EditDistance, CountsLetters) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("abc", ""), 3u);
  EXPECT_EQ(edit_distance("inspct", "inspect"), 1u);  // one is missing
  EXPECT_EQ(edit_distance("runn", "run"), 1u);        // one too many
  EXPECT_EQ(edit_distance("rum", "run"), 1u);         // another one
  EXPECT_EQ(edit_distance("urn", "run"), 1u);         // two are swapped
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

RC_GTEST_PROP(EditDistance, IsSymmetricAndAtMostTheLongerLength,
              (const std::string& a, const std::string& b)) {
  RC_ASSERT(edit_distance(a, b) == edit_distance(b, a));
  RC_ASSERT(edit_distance(a, b) <= std::max(a.size(), b.size()));
  RC_ASSERT((edit_distance(a, b) == 0) == (a == b));
}

TEST(Nearest, IsTheOneThatWasMeant) {
  const std::vector<std::string> names = {"run",        "inspect",       "tokenize",
                                          "detokenize", "--temperature", "--top-k"};
  EXPECT_EQ(nearest("inspekt", names), "inspect");
  EXPECT_EQ(nearest("tokenise", names), "tokenize");
  EXPECT_EQ(nearest("--topk", names), "--top-k");
  EXPECT_EQ(nearest("--temperatur", names), "--temperature");
  EXPECT_EQ(nearest("insp", names), "inspect");  // its beginning
}

TEST(Nearest, IsNothingWhereNoneIsClose) {
  const std::vector<std::string> names = {"run", "inspect", "tokenize"};
  EXPECT_EQ(nearest("frobnicate", names), std::nullopt);
  EXPECT_EQ(nearest("", names), std::nullopt);
  EXPECT_EQ(nearest(std::string(100'000, 'a'), names), std::nullopt);
  EXPECT_EQ(nearest("--t", {"--temperature", "--top-k"}), std::nullopt);  // the beginning of two
}

TEST(MostSimilar, AreTheNearestFirst) {
  const std::vector<std::string> names = {"llama", "qwen2", "qwen3", "gemma", "gpt_neox", "gptj"};
  using Names = std::vector<std::string>;
  EXPECT_EQ(most_similar("gemma4_text", {"gemma3_text", "gemma"}, 3), (Names{"gemma3_text"}));
  EXPECT_EQ(most_similar("qwen3_next", names, 3), (Names{"qwen3"}));
  EXPECT_EQ(most_similar("qwen4", names, 3), (Names{"qwen2", "qwen3"}));  // as far: in their order
  EXPECT_EQ(most_similar("qwen4", names, 1), (Names{"qwen2"}));
  EXPECT_EQ(most_similar("mamba", names, 3), Names{});
  EXPECT_EQ(most_similar("", names, 3), Names{});
  EXPECT_EQ(most_similar(std::string(100'000, 'a'), names, 3), Names{});
}

}  // namespace
}  // namespace nibble
