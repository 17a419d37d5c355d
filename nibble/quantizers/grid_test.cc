#include "nibble/quantizers/grid.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/quantizers/test_matrices.h"

namespace nibble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

float rounded(float w, const Grid& grid, int bits) {
  return grid.scale * (nearest_code(w, grid, static_cast<float>((1 << bits) - 1)) - grid.zero);
}

double error_of(const std::vector<float>& weights, const Grid& grid, const GridOptions& options) {
  double sum = 0;
  for (const float w : weights) {
    sum += std::pow(std::fabs(double{rounded(w, grid, options.bits)} - double{w}), options.mse);
  }
  return sum;
}

TEST(Grid, SymmetricRangeReachesTheLargestMagnitude) {
  const Grid grid = find_grid(std::vector<float>{-1.f, 0.25f, 3.f}, {.bits = 4, .sym = true});
  EXPECT_EQ(grid.scale, 6.f / 15.f);
  EXPECT_EQ(grid.zero, 8.f);
}

TEST(Grid, SymmetricGroupWithoutNegativeWeightsKeepsALowerEndOfZero) {
  const Grid grid = find_grid(std::vector<float>{1.f, 3.f}, {.bits = 4, .sym = true});
  EXPECT_EQ(grid.scale, 3.f / 15.f);
  EXPECT_EQ(grid.zero, 8.f);
  EXPECT_EQ(nearest_code(3.f, grid, 15.f), 15.f) << "the upper half of the range is clipped";
}

TEST(Grid, AsymmetricRangeContainsZero) {
  const Grid above = find_grid(std::vector<float>{2.f, 3.f}, {.bits = 4, .sym = false});
  EXPECT_EQ(above.scale, 3.f / 15.f);
  EXPECT_EQ(above.zero, 0.f);
  const Grid below = find_grid(std::vector<float>{-2.f, -3.f}, {.bits = 4, .sym = false});
  EXPECT_EQ(below.scale, 3.f / 15.f);
  EXPECT_EQ(below.zero, 15.f);
}

TEST(Grid, CodesOfManyAreThoseOfEach) {
  for (const CpuTarget target : supported_cpu_targets()) {
    for (const size_t count : {1u, 31u, 64u, 130u}) {
      std::vector<float> weights;
      for (size_t i = 0; i < count; ++i) {
        weights.push_back(0.25f * static_cast<float>((i * 37) % 101) - 12.f);  // ties among them
      }
      weights[count / 2] = 1e30f;
      for (const Grid grid : {Grid{0.5f, 8.f}, Grid{1e-40f, 3.f}, Grid{3.f, 0.f}}) {
        std::vector<uint8_t> codes(count + 1, 77);
        nearest_codes(weights, grid, 15.f, codes.data(), target);
        for (size_t i = 0; i < count; ++i) EXPECT_EQ(codes[i], nearest_code(weights[i], grid, 15.f)) << i;
        EXPECT_EQ(codes[count], 77);
      }
    }
  }
}

TEST(Grid, ZerosGetARangeOfOne) {
  for (const bool sym : {true, false}) {
    const Grid grid = find_grid(std::vector<float>(7, 0.f), {.bits = 3, .sym = sym});
    EXPECT_EQ(grid.scale, 2.f / 7.f);
    EXPECT_EQ(grid.zero, sym ? 4.f : 3.f) << "1 / float(2 / 7) is a little less than 3.5";
    EXPECT_EQ(rounded(0.f, grid, 3), 0.f);
  }
}

TEST(Grid, ZeroPointAvoids0WhereTheLayoutCannotStoreIt) {
  const std::vector<float> weights = {0.5f, 3.f};
  const Grid grid = find_grid(weights, {.bits = 4, .sym = false, .zero_may_be_0 = false});
  EXPECT_EQ(grid.zero, 1.f);
  EXPECT_EQ(rounded(3.f, grid, 4), 3.f) << "the largest weight still fits";
}

TEST(NearestCode, RoundsTiesToEvenAndDividesTruly) {
  const Grid grid{.scale = 1.f, .zero = 8.f};
  EXPECT_EQ(nearest_code(0.5f, grid, 15.f), 8.f);
  EXPECT_EQ(nearest_code(1.5f, grid, 15.f), 10.f);
  EXPECT_EQ(nearest_code(-2.5f, grid, 15.f), 6.f);
  const float third = 1.f / 3.f;
  EXPECT_EQ(nearest_code(third * 5.f, {.scale = third, .zero = 0.f}, 15.f), 5.f);
}

TEST(NearestCode, IsACodeWhateverTheWeight) {
  const Grid grid{.scale = 0.1f, .zero = 3.f};
  EXPECT_EQ(nearest_code(kInfinity, grid, 15.f), 15.f);
  EXPECT_EQ(nearest_code(-kInfinity, grid, 15.f), 0.f);
  EXPECT_EQ(nearest_code(1e30f, grid, 15.f), 15.f);
  EXPECT_EQ(nearest_code(kNaN, grid, 15.f), 0.f);
  EXPECT_EQ(nearest_code(0.f, {.scale = 0.f, .zero = 3.f}, 15.f), 0.f);
}

RC_GTEST_PROP(Grid, AsymmetricErrorIsAtMostAStep, ()) {
  const auto integers = *rc::gen::nonEmpty<std::vector<int16_t>>();
  std::vector<float> weights;
  weights.reserve(integers.size());
  for (const int16_t v : integers) weights.push_back(static_cast<float>(v) / 1024.f);
  const int bits = *rc::gen::inRange(2, 9);
  const Grid grid = find_grid(weights, {.bits = bits, .sym = false});
  RC_ASSERT(grid.zero >= 0.f && grid.zero <= static_cast<float>((1 << bits) - 1));
  // Half a step, and another half at an end of the range, whose zero point was rounded.
  for (const float w : weights) RC_ASSERT(std::fabs(rounded(w, grid, bits) - w) <= grid.scale * 1.001f);
}

TEST(ClipSearch, FindsTheBestOf80Steps) {
  for (const double exponent : {2.0, 2.4}) {
    for (const bool sym : {true, false}) {
      const GridOptions options{.bits = 3, .sym = sym, .mse = exponent};
      const std::vector<float> weights = random_matrix(1, 64, 5).values;
      const Grid full = find_grid(weights, {.bits = 3, .sym = sym});
      const Grid found = find_grid(weights, options);
      const float lo = -full.zero * full.scale;
      ASSERT_LT(lo, 0.f);
      EXPECT_LT(found.scale, full.scale);
      double best = std::numeric_limits<double>::infinity();
      for (int i = 0; i < 80; ++i) {
        const Grid grid{static_cast<float>(1 - i / 100.0) * full.scale, full.zero};
        best = std::min(best, error_of(weights, grid, options));
      }
      EXPECT_NEAR(error_of(weights, found, options), best, best * 1e-4);
    }
  }
}

TEST(ClipSearch, TriesBothZeroPointsAtTwoBitsWithoutSymmetry) {
  // -lo / scale is 0.45 for the whole range, so that 0 is nearest, but many weights are at the lower end.
  std::vector<float> weights(60, -0.45f);
  weights.push_back(2.55f);
  const GridOptions options{.bits = 2, .sym = false, .mse = 2.0};
  const Grid plain = find_grid(weights, {.bits = 2, .sym = false});
  EXPECT_EQ(plain.zero, 0.f);
  const Grid found = find_grid(weights, options);
  EXPECT_GE(found.zero, 1.f);
  EXPECT_LT(error_of(weights, found, options), error_of(weights, plain, options) / 2);
}

}  // namespace
}  // namespace nibble
