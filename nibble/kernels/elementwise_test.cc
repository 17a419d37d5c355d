#include "nibble/kernels/elementwise.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace nibble::kernels {
namespace {

// Around every multiple of a vector's length: remainders are where SIMD code breaks.
const std::vector<size_t> kSizes = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 576};

std::vector<float> normal_values(size_t n, unsigned seed, float deviation = 1.f) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.f, deviation);
  std::vector<float> values(n);
  for (float& v : values) v = normal(rng);
  return values;
}

class ElementwiseTest : public testing::TestWithParam<CpuTarget> {};
INSTANTIATE_TEST_SUITE_P(EveryTarget, ElementwiseTest, testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& test) { return std::string(cpu_target_name(test.param)); });

// n additions in float: each is off by at most half an ulp of a sum that never exceeds the sum of
// magnitudes; the square root and the products add a few more roundings.
double norm_tolerance(size_t n, double value) {
  return (static_cast<double>(n) + 8) * 0x1p-24 * std::fabs(value) + 1e-7;
}

TEST_P(ElementwiseTest, RmsNormAgreesWithDoubles) {
  for (const size_t n : kSizes) {
    const auto x = normal_values(n, 1, 3.f);
    const auto weight = normal_values(n, 2);
    std::vector<float> y(n + 1, 42.f);
    rms_norm(x.data(), weight.data(), 1e-5f, n, y.data(), GetParam());
    double squares = 0;
    for (const float v : x) squares += static_cast<double>(v) * v;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
    for (size_t i = 0; i < n; ++i) {
      const double expected = x[i] * scale * weight[i];
      EXPECT_NEAR(y[i], expected, norm_tolerance(n, expected)) << "n=" << n << " i=" << i;
    }
    EXPECT_EQ(y[n], 42.f) << "wrote behind the end";
  }
}

TEST_P(ElementwiseTest, LayerNormAgreesWithDoublesAlsoFarFromZero) {
  for (const size_t n : kSizes) {
    auto x = normal_values(n, 1);
    for (float& v : x) v += 10.f;
    const auto weight = normal_values(n, 2);
    const auto bias = normal_values(n, 3);
    std::vector<float> y(n);
    layer_norm(x.data(), weight.data(), bias.data(), 1e-5f, n, y.data(), GetParam());
    double mean = 0, variance = 0;
    for (const float v : x) mean += v / static_cast<double>(n);
    for (const float v : x) variance += (v - mean) * (v - mean) / static_cast<double>(n);
    const double scale = 1 / std::sqrt(variance + 1e-5);
    for (size_t i = 0; i < n; ++i) {
      const double expected = (x[i] - mean) * scale * weight[i] + bias[i];
      // The mean of n values near 10 may be off by n half ulps of 10 (2^-21); scaled and weighted.
      const double tolerance = static_cast<double>(n + 8) * 0x1p-21 * scale * (std::fabs(weight[i]) + 1);
      EXPECT_NEAR(y[i], expected, tolerance) << "n=" << n << " i=" << i;
    }
  }
}

TEST_P(ElementwiseTest, NormsMayOverwriteTheirInput) {
  auto x = normal_values(33, 5);
  const auto weight = normal_values(33, 6);
  std::vector<float> apart(33);
  rms_norm(x.data(), weight.data(), 1e-6f, 33, apart.data(), GetParam());
  rms_norm(x.data(), weight.data(), 1e-6f, 33, x.data(), GetParam());
  EXPECT_EQ(x, apart);
}

double reference_activation(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kRelu2:
      return std::max(x, 0.0) * std::max(x, 0.0);
  }
  return 0;
}

TEST_P(ElementwiseTest, ActivationsAgreeWithDoublesOverTheirWholeRange) {
  std::vector<float> x;
  for (float v = -100.f; v <= 100.f; v += 0.37f) x.push_back(v);
  for (float v = -15.f; v <= 15.f; v += 0.013f) x.push_back(v);
  for (const float v : {0.f, -0.f, 1e-30f, -1e-30f, 1e30f, -1e30f, 88.f, -88.f}) x.push_back(v);
  for (const Activation activation :
       {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh, Activation::kRelu}) {
    std::vector<float> y(x.size());
    activate(activation, x.data(), x.size(), y.data(), GetParam());
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = reference_activation(activation, x[i]);
      // exp is within 2 ulp (2^-22), and 1 + tanh cancels near its zero: an absolute error of an ulp
      // of 1 times |x| / 2 remains.
      const double tolerance =
          0x1p-20 * std::fabs(expected) + 0x1p-22 * std::min(std::fabs(double{x[i]}), 100.0);
      EXPECT_NEAR(y[i], expected, tolerance + 1e-36)
          << "x=" << x[i] << " activation " << static_cast<int>(activation);
    }
  }
}

// Where erf is near -1, the usual formula has no digit left.
TEST_P(ElementwiseTest, GeluKeepsTheDigitsOfSmallValues) {
  std::vector<float> x;
  for (float v = -12.f; v < 0; v += 0.01f) x.push_back(v);
  std::vector<float> y(x.size());
  activate(Activation::kGelu, x.data(), x.size(), y.data(), GetParam());
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = 0.5 * x[i] * std::erfc(-x[i] / std::sqrt(2.0));
    // What x^2 / 2 loses counts as often as it is large.
    EXPECT_NEAR(y[i] / expected, 1, 0x1p-20 + x[i] * x[i] * 0x1p-24) << "x=" << x[i];
  }
}

TEST_P(ElementwiseTest, ActivationsKeepNaN) {
  const std::vector<float> x(5, std::nanf(""));
  for (const Activation activation :
       {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh, Activation::kRelu, Activation::kRelu2}) {
    std::vector<float> y(x.size());
    activate(activation, x.data(), x.size(), y.data(), GetParam());
    for (const float v : y) EXPECT_TRUE(std::isnan(v)) << static_cast<int>(activation);
  }
}

TEST_P(ElementwiseTest, Relu2IsTheSquareOfRelu) {
  for (const size_t n : kSizes) {
    const auto x = normal_values(n, 21, 10.f);
    std::vector<float> y(n + 1, 42.f);
    activate(Activation::kRelu2, x.data(), n, y.data(), GetParam());
    for (size_t i = 0; i < n; ++i) {
      EXPECT_EQ(y[i], static_cast<float>(reference_activation(Activation::kRelu2, x[i]))) << "x=" << x[i];
    }
    EXPECT_EQ(y[n], 42.f) << "wrote behind the end";
  }
}

TEST_P(ElementwiseTest, GatedActivationIsActivationTimesUp) {
  for (const size_t n : kSizes) {
    const auto gate = normal_values(n, 7, 2.f);
    auto up = normal_values(n, 8);
    std::vector<float> activated(n);
    activate(Activation::kSilu, gate.data(), n, activated.data(), GetParam());
    for (size_t i = 0; i < n; ++i) activated[i] *= up[i];
    activate_and_multiply(Activation::kSilu, gate.data(), up.data(), n, up.data(), GetParam());
    EXPECT_EQ(up, activated);
  }
}

TEST_P(ElementwiseTest, SoftCapNeverExceedsTheCap) {
  const std::vector<float> x = {0.f, 1.f, -1.f, 5.f, 1000.f, -1000.f, 30.f};
  std::vector<float> y(x.size());
  soft_cap(x.data(), 5.f, x.size(), y.data(), GetParam());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_LE(std::fabs(y[i]), 5.f);
    EXPECT_NEAR(y[i], 5 * std::tanh(x[i] / 5.0), 5e-6);
  }
}

TEST_P(ElementwiseTest, RotationKeepsLengthAndTurnsByTheAngle) {
  for (const size_t half : {1u, 4u, 8u, 12u, 16u, 32u, 48u}) {
    const auto original = normal_values(2 * half, 9);
    std::vector<float> x = original, cos(half), sin(half);
    for (size_t i = 0; i < half; ++i) {
      cos[i] = static_cast<float>(std::cos(0.3 * static_cast<double>(i)));
      sin[i] = static_cast<float>(std::sin(0.3 * static_cast<double>(i)));
    }
    rotate_half(x.data(), cos.data(), sin.data(), half, GetParam());
    for (size_t i = 0; i < half; ++i) {
      const double a = original[i], b = original[half + i];
      EXPECT_NEAR(x[i], a * cos[i] - b * sin[i], 1e-6) << "half=" << half;
      EXPECT_NEAR(x[half + i], b * cos[i] + a * sin[i], 1e-6) << "half=" << half;
    }
  }
}

TEST_P(ElementwiseTest, AddAdds) {
  for (const size_t n : kSizes) {
    const auto x = normal_values(n, 10);
    auto y = normal_values(n, 11);
    auto expected = y;
    for (size_t i = 0; i < n; ++i) expected[i] += x[i];
    add(x.data(), n, y.data(), GetParam());
    EXPECT_EQ(y, expected);
  }
}

}  // namespace
}  // namespace nibble::kernels
