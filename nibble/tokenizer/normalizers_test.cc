#include "nibble/tokenizer/normalizers.h"

#include <initializer_list>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/tokenizer/base64.h"

namespace nibble {
namespace {

using testing::HasSubstr;

std::string normalize(const Json& json, std::string text) {
  const auto normalizer = Normalizer::parse(json);
  if (!normalizer) return to_string(normalizer.error());
  AlignedText aligned(std::move(text), /*track=*/true);
  if (const Status status = normalizer->apply(aligned); !status) return to_string(status.error());
  return aligned.text();
}

Json bert(bool clean, bool chinese, bool strip, bool lower) {
  return {{"type", "BertNormalizer"},
          {"clean_text", clean},
          {"handle_chinese_chars", chinese},
          {"strip_accents", strip},
          {"lowercase", lower}};
}

TEST(BertNormalizer, EachPartAlone) {
  EXPECT_EQ(normalize(bert(true, false, false, false), "a\x01\u200B\tb\u3000c\uFFFD"), "a b c");
  EXPECT_EQ(normalize(bert(false, true, false, false), "a漢b"), "a 漢 b");
  EXPECT_EQ(normalize(bert(false, false, true, false), "Éa"), "Ea");
  EXPECT_EQ(normalize(bert(false, false, false, true), "ÉA"), "éa");
}

TEST(BertNormalizer, AccentsFollowLowercaseIfNothingIsSaid) {
  Json json = bert(false, false, false, true);
  json["strip_accents"] = nullptr;
  EXPECT_EQ(normalize(json, "É"), "e");
  json["lowercase"] = false;
  EXPECT_EQ(normalize(json, "É"), "É");
}

std::string words(std::initializer_list<uint32_t> values) {
  std::string bytes;
  for (const uint32_t value : values) {
    for (int shift = 0; shift < 32; shift += 8)
      bytes += static_cast<char>(static_cast<uint8_t>(value >> shift));
  }
  return bytes;
}

// A trie with the one key "A", which leads to the text at `position`. Unit 0 sends to 1 << 10; 'A' is 0x41,
// so its unit stands at 1 ^ 0x41 = 0x40 and, with a child at offset 2, its value at 0x42.
std::string charsmap(uint32_t position, const std::string& texts) {
  std::string units(0x43 * 4, '\0');
  const auto set = [&](size_t unit, uint32_t value) { units.replace(unit * 4, 4, words({value})); };
  set(0, 1u << 10);
  set(0x40, (2u << 10) | (1u << 8) | 0x41u);
  set(0x42, 0x80000000u | position);
  return encode_base64(words({static_cast<uint32_t>(units.size())}) + units + texts);
}

Json precompiled(const std::string& map) { return {{"type", "Precompiled"}, {"precompiled_charsmap", map}}; }

TEST(Precompiled, ReplacesWhatItsTableHas) {
  const std::string texts("xyz\0bc\0", 7);
  EXPECT_EQ(normalize(precompiled(charsmap(0, texts)), "AbA"), "xyzbxyz");
  EXPECT_EQ(normalize(precompiled(charsmap(4, texts)), "AbA"), "bcbbc");
  EXPECT_EQ(normalize(precompiled(charsmap(3, texts)), "AbA"), "b");  // an empty text: removed
}

TEST(Precompiled, PositionsOutsideChangeNothing) {
  EXPECT_EQ(normalize(precompiled(charsmap(7, std::string("xyz\0", 4))), "AbA"), "AbA");
  EXPECT_EQ(normalize(precompiled(charsmap(1, "é")), "AbA"), "AbA");  // inside of a character
}

TEST(Precompiled, FaultsAreNamed) {
  EXPECT_THAT(normalize(precompiled("!!"), "A"), HasSubstr("is not base64"));
  EXPECT_THAT(normalize(precompiled(encode_base64("abc")), "A"), HasSubstr("too few for its table"));
  EXPECT_THAT(normalize(precompiled(encode_base64(words({8, 0}))), "A"), HasSubstr("too few for its table"));
  EXPECT_THAT(normalize(precompiled(charsmap(0, "\xFF")), "A"), HasSubstr("not UTF-8"));
  EXPECT_EQ(normalize(precompiled(""), "A"), "A");
  EXPECT_EQ(normalize(precompiled(encode_base64(words({4, 0xFFFFFFFF}))), "A"), "A");
}

TEST(Base64, RoundTrip) {
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(decode_base64(encode_base64(bytes)), bytes);
    bytes += static_cast<char>(static_cast<uint8_t>(i * 37));
  }
  EXPECT_EQ(encode_base64("ab"), "YWI=");
}

}  // namespace
}  // namespace nibble
