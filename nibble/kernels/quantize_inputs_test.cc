#include "nibble/kernels/quantize_inputs.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/kernels/test_weights.h"

namespace nibble::kernels {
namespace {

class QuantizeInputsTest : public testing::TestWithParam<CpuTarget> {};
INSTANTIATE_TEST_SUITE_P(EveryTarget, QuantizeInputsTest, testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& test) { return std::string(cpu_target_name(test.param)); });

// A token in one group, whose spans are one block long or as given.
struct Token {
  explicit Token(uint32_t blocks, CodeForm form = CodeForm::kBytes, uint32_t span_blocks = 1)
      : codes(blocks * kBlockInputs), sums(1) {
    for (uint32_t end = 0; end < blocks;) span_ends.push_back(end = std::min(end + span_blocks, blocks));
    scales.resize(span_ends.size());
    group_ends = {static_cast<uint32_t>(span_ends.size())};
    shape.num_blocks = blocks;
    shape.span_ends = span_ends;
    shape.group_ends = group_ends;
    shape.form = form;
  }
  QuantizedToken out() { return {codes.data(), scales.data(), sums.data()}; }
  bool quantize(const std::vector<float>& x, CpuTarget target) {
    return quantize_inputs(x.data(), shape, out(), target);
  }
  void quantize_16(const std::vector<float>& x, CpuTarget target) {
    low.assign(codes.size(), 99);
    quantize_inputs_16(x.data(), shape, out(), low.data(), target);
  }
  std::vector<int8_t> codes;
  std::vector<int8_t> low;  // of 16 bits
  std::vector<float> scales;
  std::vector<float> sums;
  std::vector<uint32_t> span_ends;
  std::vector<uint32_t> group_ends;
  Strips shape = {};
};

TEST_P(QuantizeInputsTest, ErrorIsAtMostHalfAStep) {
  constexpr uint32_t kBlocks = 9;
  const std::vector<float> x = random_inputs(1, kBlocks * kBlockInputs, 3);
  for (const uint32_t span_blocks : {1u, 4u, kBlocks}) {
    Token token(kBlocks, CodeForm::kBytes, span_blocks);
    token.quantize(x, GetParam());
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double scale = token.scales[i / kBlockInputs / span_blocks];
      // The product with 127 / absmax is off by two roundings, relative to at most 127 steps.
      EXPECT_NEAR(token.codes[i] * scale, x[i], scale * (0.5 + 127 * 3 * 0x1p-24)) << i;
      sum += token.codes[i] * scale;
    }
    EXPECT_NEAR(token.sums[0], sum, 1e-4 * std::fabs(sum) + 1e-3);
  }
}

TEST_P(QuantizeInputsTest, GivesTheBytesOfTheScalarTarget) {
  const std::vector<float> x = random_inputs(1, 20 * kBlockInputs, 8);
  for (const CodeForm form : {CodeForm::kBytes, CodeForm::kTwoBits, CodeForm::kThreeBits, CodeForm::kNibbles,
                              CodeForm::kNibbleTable}) {
    for (const uint32_t span_blocks : {1u, 3u}) {
      Token token(20, form, span_blocks);
      Token scalar(20, form, span_blocks);
      token.quantize(x, GetParam());
      scalar.quantize(x, CpuTarget::kScalar);
      EXPECT_EQ(token.codes, scalar.codes);
      EXPECT_EQ(token.scales, scalar.scales);
      EXPECT_EQ(token.sums, scalar.sums);
    }
  }
}

// Spikes from one that changes nothing to one that leaves nothing of the others, in one block, some and all.
TEST_P(QuantizeInputsTest, SpikyIsWhoseRestTheRoundingDrowns) {
  constexpr uint32_t kBlocks = 20;
  const std::vector<float> plain = normal_inputs(1, kBlocks * kBlockInputs, 8);
  size_t spiky_ones = 0;
  for (const float spike : {1.f, 5.f, 10.f, 20.f, 40.f, 80.f, 1e3f, 1e6f, 1e30f}) {
    for (const uint32_t every : {1u, 4u, kBlocks}) {
      std::vector<float> x = plain;
      for (uint32_t b = 0; b < kBlocks; b += every) x[b * kBlockInputs + 7] = -spike;
      Token token(kBlocks, CodeForm::kNibbles);
      const bool spiky = token.quantize(x, GetParam());
      EXPECT_EQ(spiky, Token(kBlocks, CodeForm::kBytes).quantize(x, CpuTarget::kScalar)) << spike;
      double lost = 0;  // of what is left without the largest of each span
      double rest = 0;
      for (uint32_t b = 0; b < kBlocks; ++b) {
        const std::span<const float> block = std::span(x).subspan(b * kBlockInputs, kBlockInputs);
        const auto magnitude = [](float a, float c) { return std::fabs(a) < std::fabs(c); };
        const double largest = std::fabs(*std::ranges::max_element(block, magnitude));
        for (const float v : block) rest += double{v} * v;
        rest -= largest * largest;
        lost += kBlockInputs * largest * largest / (127 * 127 * 12.0);
      }
      const double share = std::sqrt(lost / rest);
      if (share < 0.0123 || share > 0.0147) {
        EXPECT_EQ(spiky, share > 0.0135) << spike << " every " << every << " loses " << share;
      }
      spiky_ones += spiky ? 1 : 0;
    }
  }
  EXPECT_GT(spiky_ones, 8u);
  EXPECT_LT(spiky_ones, 25u);
  Token token(1);
  EXPECT_FALSE(token.quantize(std::vector<float>(kBlockInputs, 0.f), GetParam()));
  EXPECT_FALSE(token.quantize(std::vector<float>(kBlockInputs, std::nanf("")), GetParam()));
}

TEST_P(QuantizeInputsTest, SixteenBitsLoseHalfAStep) {
  constexpr uint32_t kBlocks = 9;
  std::vector<float> x = random_inputs(1, kBlocks * kBlockInputs, 3);
  x[5] = 1.f;  // the largest of its span, whose code has low byte 0
  for (const CodeForm form : {CodeForm::kBytes, CodeForm::kNibbles}) {
    for (const uint32_t span_blocks : {1u, 4u}) {
      Token token(kBlocks, form, span_blocks);
      token.quantize_16(x, GetParam());
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t at = form == CodeForm::kBytes ? i : i / 8 * 8 + i % 8 / 2 + i % 2 * 4;
        const int code = 256 * token.codes[at] + token.low[at];
        const double scale = token.scales[i / kBlockInputs / span_blocks];
        EXPECT_LE(std::abs(code), 127 * 256);
        EXPECT_NEAR(code * scale, x[i], scale * (0.5 + 32512 * 3 * 0x1p-24)) << i;
        sum += code * scale;
      }
      EXPECT_NEAR(token.sums[0], sum, 1e-5 * std::fabs(sum) + 1e-4);
    }
  }
}

TEST_P(QuantizeInputsTest, SixteenBitsGiveTheBytesOfTheScalarTarget) {
  std::vector<float> x = random_inputs(1, 20 * kBlockInputs, 8);
  x[70] = std::numeric_limits<float>::infinity();
  x[200] = 3e38f;
  for (size_t i = 320; i < 352; ++i) x[i] = 1e-38f;
  for (const CodeForm form : {CodeForm::kBytes, CodeForm::kNibbles}) {
    for (const uint32_t span_blocks : {1u, 3u, 4u}) {
      Token token(20, form, span_blocks);
      Token scalar(20, form, span_blocks);
      token.quantize_16(x, GetParam());
      scalar.quantize_16(x, CpuTarget::kScalar);
      EXPECT_EQ(token.codes, scalar.codes);
      EXPECT_EQ(token.low, scalar.low);
      for (size_t i = 0; i < token.scales.size(); ++i) {
        EXPECT_TRUE(token.scales[i] == scalar.scales[i] ||
                    (std::isnan(token.scales[i]) && std::isnan(scalar.scales[i])));
      }
      EXPECT_TRUE(std::isnan(token.sums[0]) && std::isnan(scalar.sums[0]));
    }
  }
  x[70] = 0.f;
  Token token(20);
  Token scalar(20);
  token.quantize_16(x, GetParam());
  scalar.quantize_16(x, CpuTarget::kScalar);
  EXPECT_EQ(token.sums, scalar.sums);
}

TEST_P(QuantizeInputsTest, CodesOfTheResidualAddEightBits) {
  const std::vector<float> x = random_inputs(1, 9 * kBlockInputs, 4);
  for (const CodeForm form : {CodeForm::kBytes, CodeForm::kNibbles}) {
    Token coarse(9, form, 4);
    coarse.quantize(x, GetParam());
    std::vector<float> rest(x.size());
    quantization_residual(x.data(), coarse.shape, coarse.out(), rest.data(), GetParam());
    Token fine(9, form, 4);
    fine.quantize(rest, GetParam());
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t at = form == CodeForm::kBytes ? i : i / 8 * 8 + i % 8 / 2 + i % 2 * 4;
      const size_t span = i / kBlockInputs / 4;
      const float value = coarse.scales[span] * static_cast<float>(coarse.codes[at]) +
                          fine.scales[span] * static_cast<float>(fine.codes[at]);
      EXPECT_NEAR(value, x[i], coarse.scales[span] / 500.f) << i;
    }
  }
}

TEST_P(QuantizeInputsTest, NibbleOrderPutsEvenInputsFirst) {
  std::vector<float> x(kBlockInputs, 0.f);
  for (size_t i = 0; i < 8; ++i) x[i] = static_cast<float>(i + 120);
  Token token(1, CodeForm::kNibbles);
  token.quantize(x, GetParam());
  EXPECT_EQ(std::vector<int8_t>(token.codes.begin(), token.codes.begin() + 8),
            (std::vector<int8_t>{120, 122, 124, 126, 121, 123, 125, 127}));
}

TEST_P(QuantizeInputsTest, ZeroAndTinyBlocksGetScaleZeroAndNonFiniteOnesNaN) {
  constexpr uint32_t kBlocks = 4;
  std::vector<float> x(kBlocks * kBlockInputs, 0.f);
  x[1 * kBlockInputs + 5] = 1e-38f;
  x[2 * kBlockInputs + 7] = std::numeric_limits<float>::infinity();
  x[3 * kBlockInputs + 9] = std::numeric_limits<float>::quiet_NaN();
  x[3 * kBlockInputs + 10] = 1.f;
  Token token(kBlocks);
  token.quantize(x, GetParam());
  EXPECT_EQ(token.scales[0], 0.f);
  EXPECT_EQ(token.scales[1], 0.f);
  EXPECT_TRUE(std::isnan(token.scales[2]));
  EXPECT_TRUE(std::isnan(token.scales[3]));
  EXPECT_EQ(token.codes, std::vector<int8_t>(x.size(), 0));
}

TEST_P(QuantizeInputsTest, Int8RowSetsOutliersApart) {
  std::vector<float> x(40, 1.f);
  x[3] = -6.f;
  x[20] = 7.f;
  x[35] = 100.f;
  x[36] = 3.f;
  std::vector<int8_t> codes(64, 99);
  std::vector<uint32_t> outliers(x.size());
  const Int8Row row = quantize_int8_row(x.data(), x.size(), 6.f, codes.data(), outliers.data(), GetParam());
  EXPECT_EQ(row.absmax, 3.f);
  ASSERT_EQ(row.num_outliers, 3u);
  EXPECT_EQ(std::vector<uint32_t>(outliers.begin(), outliers.begin() + 3),
            (std::vector<uint32_t>{3, 20, 35}));
  EXPECT_EQ(codes[0], 42);  // 1 * 127 / 3
  EXPECT_EQ(codes[3], 0);
  EXPECT_EQ(codes[36], 127);
  EXPECT_EQ(codes[63], 0);
  EXPECT_EQ(row.codes_sum, 36 * 42 + 127);
}

TEST_P(QuantizeInputsTest, Int8RowGivesTheBytesOfTheScalarTarget) {
  for (const size_t count : {1u, 31u, 32u, 100u, 257u}) {
    for (const float threshold : {0.f, 2.f}) {
      const std::vector<float> x = random_inputs(1, count, 12);
      std::vector<int8_t> codes(count + kBlockInputs);
      std::vector<int8_t> scalar_codes(codes.size());
      std::vector<uint32_t> outliers(count);
      std::vector<uint32_t> scalar_outliers(count);
      const Int8Row row =
          quantize_int8_row(x.data(), count, threshold, codes.data(), outliers.data(), GetParam());
      const Int8Row scalar = quantize_int8_row(x.data(), count, threshold, scalar_codes.data(),
                                               scalar_outliers.data(), CpuTarget::kScalar);
      EXPECT_EQ(row.absmax, scalar.absmax);
      EXPECT_EQ(row.codes_sum, scalar.codes_sum);
      EXPECT_EQ(row.num_outliers, scalar.num_outliers);
      EXPECT_EQ(codes, scalar_codes);
      EXPECT_EQ(outliers, scalar_outliers);
    }
  }
}

}  // namespace
}  // namespace nibble::kernels
