#include "nibble/quantization/float_blocks.h"

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/base/float16.h"

namespace nibble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(FloatBlocks, LoadsEverySixteenBitValue) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const Tensor tensor = Tensor::of(dtype, {all.size()}, std::vector<uint16_t>(all));
    std::vector<float> out(all.size());
    load_floats(tensor, 3, all.size() - 3, out.data());
    for (size_t i = 3; i < all.size(); ++i) {
      const float expected = dtype == DType::kF16 ? fp16_to_float(all[i]) : bf16_to_float(all[i]);
      ASSERT_EQ(std::bit_cast<uint32_t>(out[i - 3]), std::bit_cast<uint32_t>(expected)) << i;
    }
  }
}

TEST(FloatBlocks, FindsTheLargestMagnitudeAtAnyPlace) {
  for (size_t size = 1; size < 12; ++size) {
    for (size_t place = 0; place < size; ++place) {
      std::vector<float> values(size, 1.f);
      values[place] = -2.f;
      EXPECT_EQ(largest_magnitude(values), 2.f);
      values[place] = -kInfinity;
      EXPECT_EQ(largest_magnitude(values), kInfinity);
      values[(place + 1) % size] = kNaN;
      EXPECT_FALSE(std::isfinite(largest_magnitude(values)));
    }
  }
  EXPECT_EQ(largest_magnitude({}), 0.f);
}

TEST(FloatBlocks, ScalesAndClamps) {
  std::vector<float> values = {0.5f, -0.5f, 3.f, -3.f, 1.f, -0.f, 2.f};
  scale_and_clamp(values, 0.5f);
  EXPECT_EQ(values, (std::vector<float>{0.25f, -0.25f, 1.f, -1.f, 0.5f, -0.f, 1.f}));
}

}  // namespace
}  // namespace nibble
