#include "nibble/tokenizer/unicode.h"

#include <array>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/tokenizer/byte_level.h"
#include "nibble/tokenizer/unicode_normalization.h"

namespace nibble {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

std::string repeated(int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += kReplacement;
  return out;
}

TEST(Utf8, EachPartThatCannotBeACharacterIsReplacedOnce) {
  EXPECT_EQ(to_valid_utf8("a\xFFz"), "a" + repeated(1) + "z");
  EXPECT_EQ(to_valid_utf8("\xF0\x9F\x98z"), repeated(1) + "z");  // cut short by z
  EXPECT_EQ(to_valid_utf8("\xF0\x9F\x98"), repeated(1));         // by the end
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80"), repeated(3));         // a surrogate
  EXPECT_EQ(to_valid_utf8("\xC0\x80"), repeated(2));             // a long zero
  EXPECT_EQ(to_valid_utf8("\xF4\x90\x80\x80"), repeated(4));     // above U+10FFFF
  EXPECT_EQ(to_valid_utf8("\xE4\xB8\xAD"), "\xE4\xB8\xAD");
}

TEST(Utf8, PositionsMoveWithTheText) {
  std::array<size_t, 4> positions = {0, 1, 2, 3};
  EXPECT_EQ(to_valid_utf8("\xFF"
                          "ab",
                          positions),
            std::string(kReplacement) + "ab");
  EXPECT_EQ(positions, (std::array<size_t, 4>{0, 3, 4, 5}));
}

RC_GTEST_PROP(Utf8, AnyBytesBecomeValid, (const std::string& bytes)) {
  const std::string valid = to_valid_utf8(bytes);
  RC_ASSERT(is_valid_utf8(valid));
  RC_ASSERT(to_valid_utf8(valid) == valid);
  RC_ASSERT((valid == bytes) == is_valid_utf8(bytes));
}

TEST(Utf8, EveryCodePointSurvives) {
  for (char32_t c = 0; c < 0x110000; c += 37) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    ASSERT_TRUE(is_valid_utf8(text));
    ASSERT_EQ(decode_utf8(text, 0).value, c);
    ASSERT_EQ(decode_utf8_before(text, text.size()).value, c);
    ASSERT_EQ(text.size(), utf8_size(c));
  }
}

TEST(ByteLevel, EveryByteHasItsOwnCharacter) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    const std::string_view character = byte_level_char(static_cast<uint8_t>(byte));
    EXPECT_EQ(byte_level_byte(decode_utf8(character, 0).value), byte);
  }
  EXPECT_EQ(byte_level_char(' '), "\xC4\xA0");
  EXPECT_FALSE(byte_level_byte(0x4E2D));
}

std::string normalized(std::string_view text, NormalizationForm form) {
  std::string out;
  for (const CharChange& change : normalize_unicode(text, form)) append_utf8(out, change.c);
  return out;
}

TEST(UnicodeNormalization, FormsComposeAndDecompose) {
  const std::string composed = "\xC3\xA9\xED\x95\x9C";                             // é, Hangul han
  const std::string decomposed = "e\xCC\x81\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB";  // e ´ h a n
  EXPECT_EQ(normalized(composed, {}), decomposed);
  EXPECT_EQ(normalized(decomposed, {.compose = true}), composed);
  EXPECT_EQ(normalized("\xEF\xAC\x81", {.compatible = true, .compose = true}), "fi");  // the ligature
  EXPECT_EQ(normalized("\xEF\xAC\x81", {.compose = true}), "\xEF\xAC\x81");
}

TEST(UnicodeNormalization, MarksAreSortedByClass) {
  EXPECT_EQ(normalized("q\xCC\x87\xCC\xA3", {}), "q\xCC\xA3\xCC\x87");                    // dot below first
  EXPECT_EQ(normalized("d\xCC\x87\xCC\xA3", {.compose = true}), "\xE1\xB8\x8D\xCC\x87");  // ḍ and a dot above
}

TEST(UnicodeNormalization, AJoinedCharacterTakesTheOnesBehindIt) {
  const auto changes = normalize_unicode("e\xCC\x81x", {.compose = true});
  ASSERT_EQ(changes.size(), 2u);
  EXPECT_EQ(changes[0].c, U'\u00E9');
  EXPECT_EQ(changes[0].change, -1);
  EXPECT_EQ(changes[1].change, 0);
}

}  // namespace
}  // namespace nibble
