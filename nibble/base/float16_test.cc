#include "nibble/base/float16.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Float16, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = fp16_to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(fp16_to_float(float_to_fp16(value))));
    } else {
      EXPECT_EQ(float_to_fp16(value), half) << "bits " << bits;
    }
  }
}

TEST(Float16, EveryBfloat16SurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = bf16_to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(value))));
    } else {
      EXPECT_EQ(float_to_bf16(value), half) << "bits " << bits;
    }
  }
}

// Between two neighbouring halves: below the middle goes down, above goes up, the middle itself
// goes to the one with an even last bit.
TEST(Float16, RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7BFF; ++bits) {
    const auto lower = static_cast<uint16_t>(bits);
    const auto upper = static_cast<uint16_t>(bits + 1);
    const float middle = (fp16_to_float(lower) + fp16_to_float(upper)) / 2;  // exact in float
    EXPECT_EQ(float_to_fp16(middle), bits % 2 == 0 ? lower : upper);
    EXPECT_EQ(float_to_fp16(std::nextafter(middle, 0.f)), lower);
    EXPECT_EQ(float_to_fp16(std::nextafter(middle, 1e9f)), upper);
  }
}

TEST(Float16, OverflowBecomesInfinity) {
  EXPECT_EQ(float_to_fp16(65504.f), 0x7BFF);
  EXPECT_EQ(float_to_fp16(65519.996f), 0x7BFF);
  EXPECT_EQ(float_to_fp16(65520.f), 0x7C00);
  EXPECT_EQ(float_to_fp16(-std::numeric_limits<float>::infinity()), 0xFC00);
}

TEST(Float16, Bfloat16RoundsToNearestEven) {
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3F808000u)), 0x3F80);  // tie, even below
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3F818000u)), 0x3F82);  // tie, even above
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3F808001u)), 0x3F81);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7F80);
}

}  // namespace
}  // namespace nibble
