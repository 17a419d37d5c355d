#include "nibble/nn/int8_weight.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/kernels/test_weights.h"

namespace nibble {
namespace {

constexpr size_t kRows = 70;
constexpr size_t kColumns = 3 * kInt8WeightGroup + 5;  // the last group is short

TEST(Int8Weight, IsWithinHalfAStepOfItsGroup) {
  ThreadPool pool(2);
  std::vector<float> values = random_inputs(kRows, kColumns, 3);
  for (size_t i = 0; i < kInt8WeightGroup; ++i) values[i] = 0.f;  // a group without a scale
  const auto codes = to_int8(Tensor::of(DType::kF32, {kRows, kColumns}, std::vector<float>(values)), pool);
  ASSERT_TRUE(codes.has_value());
  std::vector<float> back(kRows * kColumns);
  dequantize_rows(*codes, 0, kRows, back.data());
  for (size_t i = 0; i < back.size(); ++i) {
    const float step = codes->scales[codes->group_of(i % kColumns) * kRows + i / kColumns];
    EXPECT_LE(std::fabs(back[i] - values[i]), 0.501f * step) << i;
  }
  EXPECT_EQ(back[0], 0.f);
}

TEST(Int8Weight, WhatIsNotFiniteStaysAsItIs) {
  ThreadPool pool(2);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> values = random_inputs(kRows, kColumns, 3);
    values.back() = bad;
    EXPECT_FALSE(to_int8(Tensor::of(DType::kF32, {kRows, kColumns}, std::move(values)), pool).has_value());
  }
}

}  // namespace
}  // namespace nibble
