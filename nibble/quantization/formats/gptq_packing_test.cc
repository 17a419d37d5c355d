#include "nibble/quantization/formats/gptq_packing.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/quantization/test_checkpoint.h"

namespace nibble {
namespace {

std::vector<uint8_t> unpack_row(const std::vector<uint32_t>& words, size_t count,
                                const GptqPacking& packing) {
  std::vector<uint8_t> codes(count);
  unpack_gptq_row(packing, words.data(), count, codes.data());
  return codes;
}

std::vector<uint8_t> counting(size_t count, unsigned modulus) {
  std::vector<uint8_t> codes;
  for (size_t k = 0; k < count; ++k) codes.push_back(static_cast<uint8_t>(k % modulus));
  return codes;
}

TEST(GptqPacking, ContinuousWordsAreThoseOfAutoGptq) {
  EXPECT_EQ(unpack_row({0x76543210}, 8, {.bits = 4}), counting(8, 8));
  EXPECT_EQ(unpack_row({0xE4E4E4E4}, 16, {.bits = 2}), counting(16, 4));
  EXPECT_EQ(unpack_row({0x04030201}, 4, {.bits = 8}), (std::vector<uint8_t>{1, 2, 3, 4}));
  EXPECT_EQ(unpack_row({0x88FAC688, 0xC688FAC6, 0xFAC688FA}, 32, {.bits = 3}), counting(32, 8));
  EXPECT_EQ(unpack_row({0x49249249, 0x92492492, 0x24924924}, 32, {.bits = 3}), std::vector<uint8_t>(32, 1));
  EXPECT_EQ(unpack_row({0x24924924, 0x49249249, 0x92492492}, 32, {.bits = 3}), std::vector<uint8_t>(32, 4));
  EXPECT_EQ(unpack_row({0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D}, 32, {.bits = 3}), std::vector<uint8_t>(32, 3));
}

TEST(GptqPacking, PlanarWordsAreThoseOfGptqModel) {
  EXPECT_EQ(unpack_row({0xE4E4E4E4, 0xE4E4E4E4, 0xF0F0F0F0}, 32, {.bits = 3, .planar = true}),
            counting(32, 8));
  EXPECT_EQ(unpack_row({0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98, 0xFFFF0000}, 32,
                       {.bits = 5, .planar = true}),
            counting(32, 32));
  EXPECT_EQ(unpack_row({0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98, 0x00000000, 0x55555555}, 32,
                       {.bits = 6, .planar = true}),
            counting(32, 64));
}

TEST(GptqPacking, OnlyPlanarHoldsFiveSixAndSevenBits) {
  for (const int bits : {2, 3, 4, 5, 6, 7, 8}) {
    EXPECT_TRUE(is_valid({.bits = bits, .planar = true})) << bits;
    EXPECT_EQ(is_valid({.bits = bits}), bits < 5 || bits == 8) << bits;
  }
  EXPECT_FALSE(is_valid({.bits = 1}));
  EXPECT_FALSE(is_valid({.bits = 9, .planar = true}));
  EXPECT_FALSE(is_valid({.bits = -1}));
}

TEST(GptqPacking, WordsAreRoundedUpAndDoNotOverflow) {
  EXPECT_EQ(gptq_words(40, {.bits = 3}), 4u);
  EXPECT_EQ(gptq_words(40, {.bits = 3, .planar = true}), 6u);
  EXPECT_EQ(gptq_words(0, {.bits = 4}), 0u);
  EXPECT_EQ(gptq_words(SIZE_MAX, {.bits = 8}), size_t{1} << 62);
}

// 32 codes fill `bits` words exactly, for every width; at 3 bits some codes straddle two words, which
// is what a hand-picked example would miss.
RC_GTEST_PROP(GptqPacking, UnpackReturnsWhatWasPacked, ()) {
  const bool planar = *rc::gen::arbitrary<bool>();
  const int bits = planar ? *rc::gen::inRange(2, 9) : *rc::gen::element(2, 3, 4, 8);
  const auto in_features = *rc::gen::inRange<size_t>(1, 200);
  const auto out_features = *rc::gen::inRange<size_t>(1, 40);
  const auto seed = *rc::gen::arbitrary<uint32_t>();
  const GptqPacking packing{.bits = bits, .planar = planar};

  std::vector<uint8_t> codes;
  uint32_t state = seed;
  for (size_t k = 0; k < in_features * out_features; ++k) {
    state = state * 1664525u + 1013904223u;
    codes.push_back(static_cast<uint8_t>((state >> 16) % (1u << bits)));
  }
  const size_t rows = gptq_words(in_features, packing).value();
  std::vector<uint32_t> qweight(rows * out_features);
  for (size_t o = 0; o < out_features; ++o) {
    const std::vector<uint32_t> column(codes.begin() + static_cast<ptrdiff_t>(o * in_features),
                                       codes.begin() + static_cast<ptrdiff_t>((o + 1) * in_features));
    const std::vector<uint32_t> words = test::pack_gptq(column, bits, planar);
    RC_ASSERT(words.size() == rows);
    for (size_t r = 0; r < rows; ++r) qweight[r * out_features + o] = words[r];
    RC_ASSERT(unpack_row(words, in_features, packing) == std::vector<uint8_t>(column.begin(), column.end()));
  }
  std::vector<uint8_t> unpacked(codes.size());
  unpack_gptq_columns(packing, qweight.data(), rows, out_features, in_features, unpacked.data());
  RC_ASSERT(unpacked == codes);
}

}  // namespace
}  // namespace nibble
