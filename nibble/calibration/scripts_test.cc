#include "nibble/calibration/scripts.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

LetterCounts letters(std::string_view text) {
  LetterCounts counts;
  counts.add(text);
  return counts;
}

std::string warning(std::string_view data, std::string_view user) {
  return script_warning(letters(data), letters(user), "a.txt").value_or("");
}

TEST(Scripts, CountsLettersOnly) {
  EXPECT_EQ(letters("Äb 12, (x)! ×÷ 😀").total(), 3u);
  EXPECT_EQ(letters("").total(), 0u);
  EXPECT_EQ(letters("кот cat").total(), 6u);
}

TEST(Scripts, EveryScriptIsFound) {
  const std::pair<std::string_view, std::string_view> examples[] = {
      {"Greek", "γάτα"},      {"Cyrillic", "кот"},     {"Armenian", "կատու"}, {"Hebrew", "חתול"},
      {"Arabic", "قطة"},      {"Devanagari", "बिल्ली"}, {"Bengali", "বিড়াল"},  {"Gurmukhi", "ਬਿੱਲੀ"},
      {"Gujarati", "બિલાડી"}, {"Tamil", "பூனை"},       {"Telugu", "పిల్లి"},     {"Kannada", "ಬೆಕ್ಕು"},
      {"Malayalam", "പൂച്ച"},   {"Sinhala", "පූසා"},      {"Thai", "แมว"},       {"Lao", "ແມວ"},
      {"Tibetan", "ཞི་མི"},     {"Burmese", "ကြောင်"},    {"Georgian", "კატა"},  {"Ethiopic", "ድመት"},
      {"Khmer", "ឆ្មា"},       {"Hangul", "고양이"},    {"Hiragana", "ねこ"},  {"Katakana", "ネコ"},
      {"Han", "猫"}};
  for (const auto& [script, text] : examples) {
    EXPECT_EQ(warning("only English", text).find("a.txt: " + std::string(script) + " (100 %"), 0u)
        << script << ": " << warning("only English", text);
  }
}

TEST(Scripts, WarnsOfWhatTheDataLacks) {
  EXPECT_EQ(warning("Only English.", "Английский and English"),
            "a.txt: Cyrillic (50 % of its letters) does not occur in the samples that were drawn: take more "
            "of them");
  EXPECT_EQ(warning("Only English.", "Only English"), "");
  EXPECT_EQ(warning("Английский and English", "Английский"), "");
  EXPECT_EQ(warning("", "猫 cat").substr(0, 20), "a.txt: Latin (75 % o");
  EXPECT_EQ(warning("Only English.", ""), "");
}

TEST(Scripts, AFewLettersAreNeitherMissedNorEnough) {
  std::string mostly_latin(1000, 'a');
  EXPECT_EQ(warning("Only English.", mostly_latin + "σ"), "");
  EXPECT_NE(warning(mostly_latin + mostly_latin + "σ", "σ"), "");
}

}  // namespace
}  // namespace nibble
