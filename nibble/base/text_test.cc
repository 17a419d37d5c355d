#include "nibble/base/text.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Text, OnlyAsciiLettersChangeTheirCase) {
  EXPECT_EQ(lower_case("GEMM_v2 Ä[@"), "gemm_v2 Ä[@");
  EXPECT_EQ(upper_case("q4_K_m ä{`"), "Q4_K_M ä{`");
  EXPECT_EQ(lower_case(""), "");
}

TEST(Text, FirstNamesOfAList) {
  const std::vector<std::string> names = {"a", "b", "c"};
  EXPECT_EQ(some_of(names, 3), "a, b, c");
  EXPECT_EQ(some_of(names, 2), "a, b and 1 more");
  EXPECT_EQ(some_of({}), "");
}

}  // namespace
}  // namespace nibble
