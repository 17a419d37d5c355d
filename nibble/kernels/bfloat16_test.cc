#include "nibble/kernels/bfloat16.h"

#include <bit>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/base/float16.h"

namespace nibble::kernels {
namespace {

TEST(Bfloat16, WidensEveryValue) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  for (const CpuTarget target : supported_cpu_targets()) {
    std::vector<float> wide(all.size());
    bf16_to_floats(all.data(), all.size(), wide.data(), target);
    for (size_t i = 0; i < all.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(wide[i]), std::bit_cast<uint32_t>(bf16_to_float(all[i])));
    }
  }
}

// Every upper half, with lower halves around a tie: infinities, NaNs and subnormals among them.
TEST(Bfloat16, RoundsAsTheScalarFunction) {
  std::vector<float> values;
  for (uint32_t upper = 0; upper < 65536; upper += 1) {
    for (const uint32_t lower : {0u, 1u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      values.push_back(std::bit_cast<float>(upper << 16 | lower));
    }
  }
  for (const CpuTarget target : supported_cpu_targets()) {
    std::vector<uint16_t> rounded(values.size());
    floats_to_bf16(values.data(), values.size(), rounded.data(), target);
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(rounded[i], float_to_bf16(values[i]));
  }
}

TEST(Bfloat16, WritesNothingPastTheEnd) {
  for (const CpuTarget target : supported_cpu_targets()) {
    for (size_t count = 0; count < 40; ++count) {
      const std::vector<float> ones(count, 1.f);
      std::vector<uint16_t> halves(count + 1, 7);
      floats_to_bf16(ones.data(), count, halves.data(), target);
      EXPECT_EQ(halves[count], 7);
      std::vector<float> wide(count + 1, 7.f);
      bf16_to_floats(halves.data(), count, wide.data(), target);
      EXPECT_EQ(wide[count], 7.f);
      for (size_t i = 0; i < count; ++i) EXPECT_EQ(wide[i], 1.f);
    }
  }
}

}  // namespace
}  // namespace nibble::kernels
