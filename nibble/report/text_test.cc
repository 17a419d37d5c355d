#include "nibble/report/text.h"

#include <gtest/gtest.h>

namespace nibble::report {
namespace {

TEST(Text, EscapesWhatIsMarkup) {
  EXPECT_EQ(escape_html("<script>alert('x' & \"y\")</script>"),
            "&lt;script&gt;alert(&#39;x&#39; &amp; &quot;y&quot;)&lt;/script&gt;");
  EXPECT_EQ(escape_markdown("a|b *c* <i> [d](e) `f`\n# g"), "a\\|b \\*c\\* &lt;i> \\[d\\](e) \\`f\\` \\# g");
}

TEST(Text, ControlAndBidiCharactersBecomeVisible) {
  EXPECT_EQ(clean("a\x1b[31m\x07z"), "a\uFFFD[31m\uFFFDz");
  EXPECT_EQ(clean(std::string_view("a\0b", 3)), "a\uFFFDb");
  EXPECT_EQ(clean("\u202Eevil\u2066"), "\uFFFDevil\uFFFD");
  EXPECT_EQ(clean("\xC2\x9B"), "\uFFFD");  // CSI of C1
  EXPECT_EQ(clean("line\n\ttab"), "line\n\ttab");
  EXPECT_EQ(clean("שלום 你好 é"), "שלום 你好 é");
}

TEST(Text, InvalidUtf8IsReplacedByteByByte) {
  EXPECT_EQ(clean("a\xff\xc3"), "a\uFFFD\uFFFD");
  EXPECT_EQ(clean("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD");  // half of a surrogate pair
}

TEST(Text, CountsAndCutsByColumns) {
  EXPECT_EQ(display_columns("abc"), 3u);
  EXPECT_EQ(display_columns("模型"), 4u);
  EXPECT_EQ(display_columns("e\u0301"), 1u);
  EXPECT_EQ(shorten("GPTQ 4-bit", 10), "GPTQ 4-bit");
  EXPECT_EQ(shorten("GPTQ 4-bit g128", 10), "GPTQ 4-bi…");
  EXPECT_EQ(shorten("模型四位", 6), "模型…");
  EXPECT_EQ(shorten("abc", 1), "…");
}

TEST(Text, WrapsAtSpaces) {
  EXPECT_EQ(wrap("one two three", 7, "  "), "one two\n  three");
  EXPECT_EQ(wrap("a-word-that-is-too-long x", 5, ""), "a-word-that-is-too-long\nx");
  EXPECT_EQ(wrap("", 10, ""), "");
  EXPECT_EQ(one_line("  a\n\n b\t"), "a b");
}

}  // namespace
}  // namespace nibble::report
