#include "nibble/quantization/float_blocks.h"

#include <algorithm>
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
    for (const CpuTarget target : supported_cpu_targets()) {
      load_floats(tensor, 3, all.size() - 3, out.data(), target);
      for (size_t i = 3; i < all.size(); ++i) {
        const float expected = dtype == DType::kF16 ? fp16_to_float(all[i]) : bf16_to_float(all[i]);
        ASSERT_EQ(std::bit_cast<uint32_t>(out[i - 3]), std::bit_cast<uint32_t>(expected)) << i;
      }
    }
  }
}

TEST(FloatBlocks, FindsTheLargestMagnitudeAtAnyPlace) {
  for (const CpuTarget target : supported_cpu_targets()) {
    for (size_t size = 1; size < 40; ++size) {
      for (size_t place = 0; place < size; ++place) {
        std::vector<float> values(size, 1.f);
        values[place] = -2.f;
        EXPECT_EQ(largest_magnitude(values, target), 2.f);
        values[place] = -kInfinity;
        EXPECT_EQ(largest_magnitude(values, target), kInfinity);
        values[(place + 1) % size] = kNaN;
        EXPECT_FALSE(std::isfinite(largest_magnitude(values, target)));
      }
    }
  }
  EXPECT_EQ(largest_magnitude({}), 0.f);
}

TEST(FloatBlocks, ScalesAndClampsEachBlockByItsFactor) {
  for (const CpuTarget target : supported_cpu_targets()) {
    for (const size_t blocksize : {7u, 32u, 64u}) {
      std::vector<float> values;
      std::vector<float> expected;
      std::vector<float> factors;
      for (size_t block = 0; block < 3; ++block) {
        factors.push_back(std::exp2(-static_cast<float>(block)));
        for (size_t i = 0; i < blocksize; ++i) {
          const float value = 0.5f * static_cast<float>((i * 5 + block) % 11) - 2.5f;
          values.push_back(value);
          expected.push_back(std::clamp(value * factors[block], -1.f, 1.f));
        }
      }
      std::vector<float> largest(3);
      block_magnitudes(values, blocksize, largest.data(), target);
      for (size_t block = 0; block < 3; ++block) {
        EXPECT_EQ(largest[block], largest_magnitude(std::span(values).subspan(block * blocksize, blocksize)));
      }
      scale_and_clamp(values, blocksize, factors.data(), target);
      EXPECT_EQ(values, expected) << blocksize;
    }
  }
}

TEST(FloatBlocks, PacksCodesOfIntervals) {
  // Codes that do not rise with the value, as those of FP4.
  CodeIntervals intervals = {};
  for (size_t i = 0; i < 16; ++i) intervals.codes[i] = static_cast<int32_t>((i * 7 + 3) % 16);
  for (size_t i = 0; i < 15; ++i) intervals.bounds[i] = static_cast<float>(i) - 7.f;
  std::vector<float> values(150);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.5f * static_cast<float>((i * 11) % 37) - 9.f;
  for (const CpuTarget target : supported_cpu_targets()) {
    std::vector<uint8_t> packed(values.size() / 2);
    pack_codes(values, intervals, packed.data(), target);
    for (size_t i = 0; i < values.size(); ++i) {
      size_t below = 0;  // a value on a bound is not above it
      while (below < 15 && values[i] > intervals.bounds[below]) ++below;
      EXPECT_EQ(i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15, intervals.codes[below]) << i;
    }
  }
}

TEST(FloatBlocks, RoundsTiesToEven) {
  std::vector<float> values(43);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.5f * static_cast<float>(i) - 10.f;
  for (const CpuTarget target : supported_cpu_targets()) {
    std::vector<int8_t> codes(values.size());
    scale_and_round(values, 3.f, codes.data(), target);
    for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(codes[i], std::nearbyint(3.f * values[i])) << i;
  }
}

}  // namespace
}  // namespace nibble
