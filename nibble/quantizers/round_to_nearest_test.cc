#include "nibble/quantizers/round_to_nearest.h"

#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/quantizers/test_matrices.h"

namespace nibble {
namespace {

Tensor float_tensor(const TestMatrix& matrix) {
  return Tensor::of(DType::kF32, {matrix.rows, matrix.cols}, matrix.values);
}

TEST(RoundToNearest, TakesTheNearestCodeOfEachGroup) {
  const TestMatrix weight = random_matrix(9, 70, 24);
  for (const bool sym : {true, false}) {
    ThreadPool pool(2);
    const SolvedWeight solved =
        solved_or_fail(round_to_nearest(weight.view(), {.group_size = 32, .sym = sym}, pool));
    EXPECT_TRUE(solved.rounded_to_nearest);
    EXPECT_EQ(solved.weight.num_groups, 3u);
    std::vector<float> values(weight.values.size());
    dequantize_rows(solved.weight, 0, 9, values.data());
    for (size_t k = 0; k < values.size(); ++k) {
      const float scale = solved.weight.scales[k % 70 / 32 * 9 + k / 70];
      EXPECT_NEAR(values[k], weight.values[k], 1.02f * scale);
    }
  }
}

TEST(RoundToNearest, OfStoredWeightsIsThatOfTheirFloats) {
  const Tensor exact = float_tensor(random_matrix(37, 70, 25));
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
    const Tensor stored = convert_tensor(exact, dtype).value();
    const std::vector<float> floats = to_floats(stored).value();
    for (const int bits : {2, 4, 8}) {
      const GptqSettings settings = {.bits = bits, .group_size = 32, .sym = bits != 2};
      ThreadPool one(1);
      ThreadPool three(3);
      const SolvedWeight expected =
          solved_or_fail(round_to_nearest(MatrixView<const float>(floats.data(), 37, 70), settings, one));
      const SolvedWeight solved = solved_or_fail(round_to_nearest(stored, settings, three));
      EXPECT_EQ(solved.weight.codes, expected.weight.codes) << dtype_name(dtype) << ", " << bits << " bits";
      EXPECT_EQ(solved.weight.scales, expected.weight.scales);
      EXPECT_EQ(solved.weight.zeros, expected.weight.zeros);
    }
  }
}

TEST(RoundToNearest, NamesTheFirstElementThatIsNotFinite) {
  TestMatrix weight = random_matrix(64, 32, 26);
  weight.at(50, 3) = std::numeric_limits<float>::infinity();
  weight.at(20, 7) = std::numeric_limits<float>::quiet_NaN();
  ThreadPool pool(4);
  const auto solved = round_to_nearest(float_tensor(weight), {.group_size = 32}, pool);
  ASSERT_FALSE(solved.has_value());
  EXPECT_EQ(solved.error().code, ErrorCode::kDataLoss);
  EXPECT_NE(to_string(solved.error()).find("[20, 7] is nan"), std::string::npos);
}

TEST(RoundToNearest, RefusesWhatItCannotDo) {
  ThreadPool pool(1);
  const TestMatrix weight = random_matrix(4, 8, 27);
  const auto code = [&](const Tensor& tensor, const GptqSettings& settings) {
    const auto solved = round_to_nearest(tensor, settings, pool);
    return solved ? ErrorCode::kCancelled : solved.error().code;
  };
  EXPECT_EQ(code(float_tensor(weight), {.bits = 1}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(float_tensor(weight), {.mse = -1.0}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(Tensor::of(DType::kF32, {32}, weight.values), {}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(float_tensor(TestMatrix(0, 8)), {}), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
