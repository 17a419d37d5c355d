#include "nibble/quantizers/awq_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/float16.h"
#include "nibble/base/sha256.h"
#include "nibble/quantization/formats/awq.h"
#include "nibble/quantization/formats/encode.h"
#include "nibble/quantizers/test_matrices.h"

namespace nibble {
namespace {

using testing::ElementsAre;

template <class T>
std::string sha_of(const std::vector<T>& values) {
  return sha256(std::as_bytes(std::span(values)));
}

std::vector<float> mean_magnitudes(const TestMatrix& x) {
  std::vector<float> means(x.cols);
  for (size_t i = 0; i < x.cols; ++i) {
    for (size_t n = 0; n < x.rows; ++n) means[i] += std::fabs(x.at(n, i));
    means[i] /= static_cast<float>(x.rows);
  }
  return means;
}

TestMatrix gram_of(const TestMatrix& x) { return second_moments(x, 1.0 / static_cast<double>(x.rows)); }

// The layer whose scales AutoAWQ's own code searched.
struct OriginalLayer {
  OriginalLayer() : weight(formula_weight(64, 64)), inputs(formula_inputs(48, 64)) {
    weight.scale_column(10, 0.125f);
    inputs.scale_column(3, 8.f);
    inputs.scale_column(40, 4.f);
    inputs.scale_column(17, 2.f);
    inputs.scale_column(50, 0.25f);
  }
  AwqScales search(const AwqSettings& settings, ThreadPool& pool) const {
    const MatrixView<const float> weights[] = {weight.view()};
    const TestMatrix gram = gram_of(inputs);
    auto scales = search_awq_scales(weights, gram.view(), mean_magnitudes(inputs), settings, pool);
    if (!scales) throw std::runtime_error(to_string(scales.error()));
    return std::move(*scales);
  }

  TestMatrix weight;
  TestMatrix inputs;
};

void expect_scales(const AwqScales& found, const std::vector<double>& expected) {
  const size_t inputs[] = {0, 3, 10, 17, 40, 50};
  for (size_t k = 0; k < 6; ++k) EXPECT_NEAR(double{found.scales[inputs[k]]}, expected[k], 3e-6) << inputs[k];
}

TEST(AwqScaleSearch, FindsTheOriginalsScales) {
  ThreadPool pool(2);
  const AwqScales duo = OriginalLayer().search({.group_size = 32}, pool);
  EXPECT_NEAR(duo.ratio, 0.30, 1e-9);
  EXPECT_NEAR(duo.loss, 0.160976, 1e-6);
  expect_scales(duo, {0.582071, 1.151574, 2.663698, 0.764304, 0.949368, 0.375418});
  const AwqScales single = OriginalLayer().search({.group_size = 32, .duo_scaling = false}, pool);
  EXPECT_NEAR(single.ratio, 0.30, 1e-9);
  EXPECT_NEAR(single.loss, 0.164809, 1e-6);
  expect_scales(single, {0.874194, 1.686155, 0.916147, 1.119104, 1.390842, 0.593065});
  EXPECT_GT(single.loss_unscaled, single.loss);
  EXPECT_EQ(single.loss_unscaled, duo.loss_unscaled);
}

// mean((y - y')^2) with the forward passes that the search does without.
double plain_loss(const TestMatrix& weight, const TestMatrix& x, const std::vector<float>& scales,
                  size_t group_size) {
  double sum = 0;
  for (size_t o = 0; o < weight.rows; ++o) {
    std::vector<double> off(weight.cols);
    for (size_t first = 0; first < weight.cols; first += group_size) {
      const size_t last = std::min(weight.cols, first + group_size);
      float lo = std::numeric_limits<float>::infinity();
      float hi = -lo;
      for (size_t i = first; i < last; ++i) {
        lo = std::min(lo, weight.at(o, i) * scales[i]);
        hi = std::max(hi, weight.at(o, i) * scales[i]);
      }
      const float scale = std::max(hi - lo, 1e-5f) / 15.f;
      const float zero = std::clamp(-std::nearbyint(lo / scale), 0.f, 15.f);
      for (size_t i = first; i < last; ++i) {
        const float code = std::clamp(std::nearbyint(weight.at(o, i) * scales[i] / scale) + zero, 0.f, 15.f);
        off[i] = double{(code - zero) * scale / scales[i]} - double{weight.at(o, i)};
      }
    }
    for (size_t n = 0; n < x.rows; ++n) {
      double change = 0;
      for (size_t i = 0; i < weight.cols; ++i) change += off[i] * double{x.at(n, i)};
      sum += change * change;
    }
  }
  return sum / static_cast<double>(weight.rows * x.rows);
}

TEST(AwqScaleSearch, LossIsTheMeanOverAllOutputsOfAllLinears) {
  const TestMatrix a = random_matrix(40, 72, 1);
  const TestMatrix b = random_matrix(8, 72, 2);
  const TestMatrix x = correlated_inputs(100, 72, 3);
  const TestMatrix gram = gram_of(x);
  const MatrixView<const float> weights[] = {a.view(), b.view()};
  for (const size_t group_size : {size_t{32}, size_t{0}}) {  // 72 = 2 * 32 + 8
    ThreadPool pool(2);
    const auto found =
        search_awq_scales(weights, gram.view(), mean_magnitudes(x), {.group_size = group_size}, pool);
    ASSERT_TRUE(found.has_value());
    const size_t group = group_size == 0 ? 72 : group_size;
    const double expected =
        (40 * plain_loss(a, x, found->scales, group) + 8 * plain_loss(b, x, found->scales, group)) / 48;
    EXPECT_NEAR(found->loss, expected, 1e-5 * expected);
    const std::vector<float> ones(72, 1.f);
    const double unscaled = (40 * plain_loss(a, x, ones, group) + 8 * plain_loss(b, x, ones, group)) / 48;
    EXPECT_NEAR(found->loss_unscaled, unscaled, 1e-5 * unscaled);
    EXPECT_LT(found->loss, found->loss_unscaled);
    const double importance[] = {0.25, 3.0};
    const auto weighted = search_awq_scales(weights, gram.view(), mean_magnitudes(x),
                                            {.group_size = group_size}, pool, importance);
    ASSERT_TRUE(weighted.has_value());
    const double by_importance = (0.25 * 40 * plain_loss(a, x, weighted->scales, group) +
                                  3.0 * 8 * plain_loss(b, x, weighted->scales, group)) /
                                 48;
    EXPECT_NEAR(weighted->loss, by_importance, 1e-5 * by_importance);
  }
}

TEST(AwqScaleSearch, GivesTheSameBitsForAnyNumberOfThreads) {
  const OriginalLayer layer;
  ThreadPool one(1);
  const AwqScales expected = layer.search({.group_size = 32}, one);
  for (const size_t threads : {size_t{2}, size_t{3}}) {
    ThreadPool pool(threads);
    const AwqScales found = layer.search({.group_size = 32}, pool);
    EXPECT_EQ(found.scales, expected.scales);
    EXPECT_EQ(found.loss, expected.loss);
    EXPECT_EQ(found.loss_unscaled, expected.loss_unscaled);
  }
}

TEST(AwqScaleSearch, RefusesInputsThatAreNotNumbers) {
  const TestMatrix weight = random_matrix(8, 16, 4);
  TestMatrix gram = gram_of(random_matrix(20, 16, 5));
  gram.at(3, 3) = std::numeric_limits<float>::quiet_NaN();
  const MatrixView<const float> weights[] = {weight.view()};
  ThreadPool pool(1);
  const auto found = search_awq_scales(weights, gram.view(), std::vector<float>(16, 1.f), {}, pool);
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE(search_awq_scales({}, gram.view(), std::vector<float>(16, 1.f), {}, pool).has_value());
  EXPECT_FALSE(search_awq_scales(weights, gram.view(), std::vector<float>(15, 1.f), {}, pool).has_value());
}

TEST(AwqScaleSearch, DeadAndConstantInputsDoNoHarm) {
  const TestMatrix weight = random_matrix(8, 32, 6);
  TestMatrix x = random_matrix(20, 32, 7);
  x.scale_column(4, 0.f);
  const TestMatrix gram = gram_of(x);
  const MatrixView<const float> weights[] = {weight.view()};
  ThreadPool pool(1);
  const auto found = search_awq_scales(weights, gram.view(), mean_magnitudes(x), {}, pool);
  ASSERT_TRUE(found.has_value());
  for (const float scale : found->scales) EXPECT_TRUE(std::isfinite(scale) && scale > 0.f);
}

TEST(AwqClipSearch, ChoosesTheOriginalsLimits) {
  ThreadPool pool(2);
  OriginalLayer layer;
  const AwqSettings settings{.group_size = 32};
  const AwqScales scales = layer.search(settings, pool);
  for (size_t i = 0; i < 64; ++i) {
    layer.weight.scale_column(i, scales.scales[i]);
    for (size_t n = 0; n < 48; ++n) layer.inputs.at(n, i) /= scales.scales[i];
  }
  const TestMatrix gram = gram_of(layer.inputs);
  const std::vector<float> clips = search_awq_clips(layer.weight.view(), gram.view(), settings, pool);
  std::vector<int> histogram(10);
  for (size_t o = 0; o < 64; ++o) {
    for (size_t k = 0; k < 2; ++k) {
      float largest = 0.f;
      for (size_t i = 32 * k; i < 32 * k + 32; ++i)
        largest = std::max(largest, std::fabs(layer.weight.at(o, i)));
      const float share = clips[o * 2 + k] / largest;
      ++histogram.at(static_cast<size_t>(std::lround((1.f - share) * 20.f)));
    }
  }
  // The lowest weight of a clipped group lies in the middle of two codes, so that the last bit of a scale
  // may move a group to the next limit.
  const int expected[] = {80, 33, 13, 2, 0, 0, 0, 0, 0, 0};
  for (size_t i = 0; i < 10; ++i) EXPECT_NEAR(histogram[i], expected[i], 1) << i;

  apply_awq_clips(layer.weight.view(), clips, 32, pool);
  for (size_t o = 0; o < 64; ++o) {
    for (size_t i = 0; i < 64; ++i) EXPECT_LE(std::fabs(layer.weight.at(o, i)), clips[o * 2 + i / 32]);
  }
}

// mean((y - y')^2) of one row over the inputs [first, last) with weights clipped to a limit.
double plain_clip_loss(const TestMatrix& weight, size_t row, const TestMatrix& x, size_t first, size_t last,
                       float limit) {
  float lo = limit;
  float hi = -limit;
  for (size_t i = first; i < last; ++i) {
    lo = std::min(lo, std::clamp(weight.at(row, i), -limit, limit));
    hi = std::max(hi, std::clamp(weight.at(row, i), -limit, limit));
  }
  const float scale = std::max(hi - lo, 1e-5f) / 15.f;
  const float zero = std::clamp(-std::nearbyint(lo / scale), 0.f, 15.f);
  double sum = 0;
  for (size_t n = 0; n < x.rows; ++n) {
    double change = 0;
    for (size_t i = first; i < last; ++i) {
      const float w = std::clamp(weight.at(row, i), -limit, limit);
      const float rounded = (std::clamp(std::nearbyint(w / scale) + zero, 0.f, 15.f) - zero) * scale;
      change += (double{rounded} - double{weight.at(row, i)}) * double{x.at(n, i)};
    }
    sum += change * change;
  }
  return sum / static_cast<double>(x.rows);
}

TEST(AwqClipSearch, GivesTheSmallestErrorOfEveryGroup) {
  const TestMatrix weight = random_matrix(20, 72, 10);
  const TestMatrix x = correlated_inputs(100, 72, 11);
  ThreadPool pool(2);
  const TestMatrix gram = gram_of(x);
  const std::vector<float> clips = search_awq_clips(weight.view(), gram.view(), {.group_size = 32}, pool);
  for (size_t o = 0; o < 20; ++o) {
    for (size_t k = 0; k < 3; ++k) {
      const size_t first = 32 * k;
      const size_t last = std::min<size_t>(72, first + 32);
      float largest = 0.f;
      for (size_t i = first; i < last; ++i) largest = std::max(largest, std::fabs(weight.at(o, i)));
      double smallest = std::numeric_limits<double>::infinity();
      for (int i = 0; i < 10; ++i) {
        const float limit = largest * static_cast<float>(1 - i / 20.0);
        smallest = std::min(smallest, plain_clip_loss(weight, o, x, first, last, limit));
      }
      const double found = plain_clip_loss(weight, o, x, first, last, clips[o * 3 + k]);
      EXPECT_LE(found, smallest * (1 + 1e-5)) << o << ' ' << k;
    }
  }
}

TEST(AwqClipSearch, GivesTheSameBitsForAnyNumberOfThreads) {
  const TestMatrix weight = random_matrix(70, 72, 8);
  const TestMatrix gram = gram_of(correlated_inputs(100, 72, 9));
  ThreadPool one(1);
  const std::vector<float> expected = search_awq_clips(weight.view(), gram.view(), {.group_size = 32}, one);
  EXPECT_EQ(expected.size(), 70u * 3u);
  for (const size_t threads : {size_t{2}, size_t{3}}) {
    ThreadPool pool(threads);
    EXPECT_EQ(search_awq_clips(weight.view(), gram.view(), {.group_size = 32}, pool), expected);
  }
}

// The weight that AutoAWQ's own code rounded.
QuantizedWeight original_weight() {
  ThreadPool pool(2);
  return quantize_awq(formula_weight(32, 128).view(), {.group_size = 64}, pool);
}

TEST(QuantizeAwq, GivesTheOriginalsCodes) {
  const QuantizedWeight quantized = original_weight();
  std::vector<uint8_t> codes(size_t{32} * 128);
  for (size_t o = 0; o < 32; ++o) {
    for (size_t i = 0; i < 128; ++i) codes[i * 32 + o] = quantized.codes[o * 128 + i];
  }
  EXPECT_EQ(sha_of(codes), "22cda92e419c9a6525c489f568a124555f44f02e3e91fc67e7efc4a0662ba7d2");
  std::vector<uint32_t> words(size_t{128} * 4);
  pack_awq_gemm(quantized.codes.data(), 32, 128, words.data());
  EXPECT_THAT(std::vector<uint32_t>(words.begin(), words.begin() + 4),
              ElementsAre(0xda52c830u, 0xfa62c941u, 0xea63da51u, 0x1b73d961u));
  EXPECT_EQ(sha_of(words), "17d0cd01a3936875d534e9322ce7f088d6df2ba9959237adfd335245e459c961");
}

TEST(QuantizeAwq, GivesTheOriginalsScalesAndZeroPoints) {
  const QuantizedWeight quantized = original_weight();
  std::vector<uint16_t> scales;
  for (const float scale : quantized.scales) scales.push_back(float_to_fp16(scale));
  EXPECT_EQ(sha_of(scales), "de5a5e257d3514a3b0aca90702ca321674ef81fe17a63f32fbfe90daf26a4417");
  EXPECT_EQ(scales[0], 0x3022);
  EXPECT_EQ(scales[32], 0x2fef);
  const std::vector<float> zeros(quantized.zeros.begin(), quantized.zeros.begin() + 8);
  EXPECT_THAT(zeros, ElementsAre(8, 8, 7, 7, 8, 8, 8, 7));
  const std::vector<float> second(quantized.zeros.begin() + 32, quantized.zeros.begin() + 40);
  EXPECT_THAT(second, ElementsAre(8, 7, 8, 8, 7, 7, 8, 8));
  EXPECT_TRUE(encode_affine(quantized, AffineLayout::kAwqGemm).has_value());
}

TEST(QuantizeAwq, DequantizesToTheOriginalsWeight) {
  const QuantizedWeight quantized = original_weight();
  std::vector<float> values(size_t{32} * 128);
  dequantize_rows(quantized, 0, 32, values.data());
  std::vector<uint16_t> halves(size_t{32} * 128);
  for (size_t o = 0; o < 32; ++o) {
    for (size_t i = 0; i < 128; ++i) halves[i * 32 + o] = float_to_fp16(values[o * 128 + i]);
  }
  EXPECT_EQ(sha_of(halves), "95a98ecd5d8c2fd922da768a02324e440f54c1cf253330bf1d20a15b48c9a1e3");
}

TEST(QuantizeAwq, SymmetricCodesSurround8) {
  ThreadPool pool(1);
  TestMatrix weight(1, 4);
  weight.values = {-7.f, 3.5f, 7.f, 0.f};
  const QuantizedWeight quantized = quantize_awq(weight.view(), {.zero_point = false}, pool);
  EXPECT_THAT(quantized.codes, ElementsAre(1, 12, 15, 8));  // rne(3.5) is 4
  EXPECT_THAT(quantized.scales, ElementsAre(1.f));
  EXPECT_THAT(quantized.zeros, ElementsAre(8.f));
}

TEST(QuantizeAwq, GroupsFarFromZeroSaturate) {
  ThreadPool pool(1);
  TestMatrix weight(2, 2);
  weight.values = {10.f, 11.f, -10.f, -11.f};
  const QuantizedWeight quantized = quantize_awq(weight.view(), {}, pool);
  EXPECT_THAT(quantized.codes, ElementsAre(15, 15, 0, 0));
  EXPECT_THAT(quantized.zeros, ElementsAre(0.f, 15.f));
}

TEST(QuantizeAwq, GivesACodeWhateverTheWeight) {
  ThreadPool pool(1);
  TestMatrix weight(3, 4);
  const float inf = std::numeric_limits<float>::infinity();
  weight.values = {0.f,  0.f,     0.f,  0.f, std::numeric_limits<float>::quiet_NaN(), 1.f, -1.f, 0.f,
                   -inf, 65504.f, 1e9f, inf};
  const QuantizedWeight quantized = quantize_awq(weight.view(), {}, pool);
  for (const uint8_t code : quantized.codes) EXPECT_LT(code, 16);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(quantized.codes[i], 0);
  for (const float zero : quantized.zeros) EXPECT_TRUE(zero >= 0.f && zero <= 15.f);
}

}  // namespace
}  // namespace nibble
