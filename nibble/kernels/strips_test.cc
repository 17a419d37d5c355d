#include "nibble/kernels/strips.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/simd_region.h"
#include "nibble/base/thread_pool.h"
#include "nibble/kernels/strip_matrix.h"
#include "nibble/kernels/strips_targets.h"
#include "nibble/kernels/test_tokens.h"
#include "nibble/kernels/test_weights.h"

namespace nibble::kernels {
namespace {

std::vector<float> product(const StripMatrix& matrix, const QuantizedInputs& x, CpuTarget target) {
  const Strips w = matrix.view();
  const size_t tokens = x.rows / x.rows_per_token;
  std::vector<float> y(tokens * w.out_features, -1.f);
  AlignedBuffer scratch(strips_scratch_bytes(w, target));
  strips_product(w, x, 0, w.num_strips(), MatrixView<float>(y.data(), tokens, w.out_features),
                 scratch.as<uint8_t>(), target);
  return y;
}

// The weight that the layout stands for: scales perhaps in half precision, a codebook in steps of
// 1/127. `parts` bounds what a product is made of before zero points are subtracted.
struct StoredWeight {
  double value;
  double parts;
};
StoredWeight stored_weight(const QuantizedWeight& w, const Strips& view, size_t o, size_t i) {
  const auto stored_scale = [&](float s) {
    return double{view.half_scales ? rounded_to(s, DType::kF16) : s};
  };
  const size_t element = o * w.in_features + i;
  const double code = w.codes[element];
  if (w.formula == WeightFormula::kRowAbsmax) return {w.absmax[o] * (code - 128), w.absmax[o] * (code + 128)};
  if (w.formula == WeightFormula::kCodebook) {
    // What a block of absmax 1 is multiplied by, as scale and byte: element by element from the packed form.
    const size_t group = i / std::min(w.group_size, w.in_features);
    const size_t at =
        (o / kStripOutputs * view.group_ends.size() + group) * kStripOutputs + o % kStripOutputs;
    const double scale = view.half_scales
                             ? double{fp16_to_float(static_cast<const uint16_t*>(view.scales)[at])}
                             : double{static_cast<const float*>(view.scales)[at]};
    const float value = w.codebook[w.codes[element]] * w.absmax[element / w.group_size];
    const double step = scale == 0 ? 0 : std::nearbyint(value / scale + view.zero) - view.zero;
    // The grid is never further from an entry than half a step.
    EXPECT_LE(std::fabs(scale * step - value), std::fabs(scale) * 0.501 + 1e-30);
    return {scale * step, std::fabs(scale) * (std::fabs(step) + 256)};
  }
  const size_t s = w.group_of(i) * w.out_features + o;
  const double scale = stored_scale(w.scales[s]);
  const double zero = w.zeros[s];
  if (w.formula == WeightFormula::kOffset) {
    return {scale * code + zero, std::fabs(scale) * code + std::fabs(zero)};
  }
  return {scale * (code - zero), std::fabs(scale) * (code + std::fabs(zero))};
}

size_t position_of(const StripMatrix& matrix, size_t input) {
  for (size_t p = 0; p < matrix.positions().size(); ++p) {
    if (matrix.positions()[p] == input) return p;
  }
  return input;
}

size_t span_of(const Strips& w, size_t position) {
  const auto end = std::ranges::upper_bound(w.span_ends, position / kBlockInputs);
  return static_cast<size_t>(end - w.span_ends.begin());
}

size_t stored_position(const Strips& w, size_t position) {  // of an activation
  if (w.form == CodeForm::kBytes) return position;
  return position / 8 * 8 + position % 8 / 2 + position % 2 * 4;
}

// 7 tokens: of a row each, tiles of 6 and 1, or of 4, 2 and 1; of two rows, of 8, 4 and 2.
void check_against_doubles(const WeightCase& c, size_t rows_per_token, ThreadPool& pool) {
  constexpr size_t kTokens = 7;
  const QuantizedWeight weight = random_weight(c, 9);
  const StripMatrix matrix(weight, pool, 1 + c.out_features % 4);
  const Strips w = matrix.view();
  const Tokens tokens(matrix, kTokens, CpuTarget::kScalar, rows_per_token);
  std::vector<size_t> positions(c.in_features);
  for (size_t i = 0; i < c.in_features; ++i) positions[i] = position_of(matrix, i);
  for (const CpuTarget target : supported_cpu_targets()) {
    SCOPED_TRACE(c.name() + " " + std::string(cpu_target_name(target)));
    const std::vector<float> y = product(matrix, tokens.view, target);
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t o = 0; o < c.out_features; ++o) {
        double expected = 0;
        double magnitude = 0;
        for (size_t i = 0; i < c.in_features; ++i) {
          const size_t p = positions[i];
          const double x = tokens.code(t, stored_position(w, p)) *
                           double{tokens.scales[t * w.span_ends.size() + span_of(w, p)]};
          const StoredWeight stored = stored_weight(weight, w, o, i);
          expected += stored.value * x;
          magnitude += stored.parts * std::fabs(x);
        }
        // Spans are added in float one by one, groups too, each with three roundings.
        const double roundings = static_cast<double>(w.span_ends.size() + 4 * w.group_ends.size() + 4);
        ASSERT_NEAR(y[t * c.out_features + o], expected, roundings * 0x1p-23 * magnitude + 1e-37)
            << "token " << t << " output " << o;
      }
    }
  }
}

TEST(Strips, AgreeWithTheStoredWeightInDouble) {
  ThreadPool pool(2);
  for (const WeightCase& c : strip_cases()) {
    for (const size_t rows_per_token : {1u, 2u}) check_against_doubles(c, rows_per_token, pool);
  }
}

TEST(Strips, EveryTargetGivesTheSameBytes) {
  ThreadPool pool(1);
  for (const WeightCase& c : strip_cases()) {
    const StripMatrix matrix(random_weight(c, 10), pool, 1 + c.out_features % 4);
    for (const size_t rows_per_token : {1u, 2u}) {
      const Tokens tokens(matrix, 27, CpuTarget::kScalar, rows_per_token);  // tiles of 8, 6 or 4, 2 and 1
      const std::vector<float> scalar = product(matrix, tokens.view, CpuTarget::kScalar);
      for (const CpuTarget target : supported_cpu_targets()) {
        const std::vector<float> y = product(matrix, tokens.view, target);
        EXPECT_EQ(std::memcmp(y.data(), scalar.data(), y.size() * sizeof(float)), 0)
            << c.name() << " " << cpu_target_name(target) << " " << rows_per_token;
      }
    }
  }
}

TEST(Strips, FewerBitsGiveTheBytesOfNibbles) {
  ThreadPool pool(1);
  size_t tried = 0;
  for (const WeightCase& c : strip_cases()) {
    if (c.bits > 3) continue;
    QuantizedWeight weight = random_weight(c, 17);
    const StripMatrix narrow(weight, pool);
    weight.bits = 4;
    const StripMatrix nibbles(weight, pool);
    EXPECT_LT(narrow.bytes(), nibbles.bytes());
    const Tokens tokens(narrow, 27, CpuTarget::kScalar);
    for (const CpuTarget target : supported_cpu_targets()) {
      for (const size_t rows : {1u, 4u, 12u, 27u}) {  // packed and unpacked
        QuantizedInputs x = tokens.view;
        x.rows = rows;
        EXPECT_EQ(product(narrow, x, target), product(nibbles, x, target))
            << c.name() << " " << cpu_target_name(target) << " " << rows;
        ++tried;
      }
    }
  }
  EXPECT_GE(tried, 10u * supported_cpu_targets().size());
}

#if NIBBLE_X86
// With VBMI codebooks take another way, and strips_product() does not try the one of older processors.
TEST(Strips, CodebooksGiveTheSameBytesWithAndWithoutVbmi) {
  const auto targets = supported_cpu_targets();
  if (std::ranges::find(targets, CpuTarget::kAvx512) == targets.end() || !has_vbmi()) {
    GTEST_SKIP() << "no AVX-512 VBMI";
  }
  ThreadPool pool(1);
  for (const WeightCase& c : strip_cases()) {
    const StripMatrix matrix(random_weight(c, 14), pool);
    const Strips w = matrix.view();
    for (const size_t count : {1u, 3u, 12u, 27u}) {  // from nibbles, and from unpacked bytes
      const Tokens tokens(matrix, count, CpuTarget::kScalar);
      std::vector<float> y[2] = {std::vector<float>(count * w.out_features), {}};
      y[1] = y[0];
      AlignedBuffer scratch(strips_scratch_bytes(w, CpuTarget::kAvx512));
      const auto all = [&](std::vector<float>& out) {
        return MatrixView<float>(out.data(), count, w.out_features);
      };
      strips_product_avx512(w, tokens.view, 0, w.num_strips(), all(y[0]), scratch.as<uint8_t>());
      strips_product_avx512_vbmi(w, tokens.view, 0, w.num_strips(), all(y[1]), scratch.as<uint8_t>());
      EXPECT_EQ(std::memcmp(y[0].data(), y[1].data(), y[0].size() * sizeof(float)), 0) << c.name() << count;
    }
  }
}
#endif

TEST(Strips, ARowGivesTheSameBytesInAnyTile) {
  ThreadPool pool(1);
  for (const WeightCase& c : strip_cases()) {
    constexpr size_t kMost = 21;
    for (const size_t rows_per_token : {1u, 2u}) {
      const StripMatrix matrix(random_weight(c, 11), pool, rows_per_token == 2 ? kMostBlocksOf16Bits : 1);
      const Tokens tokens(matrix, kMost, CpuTarget::kScalar, rows_per_token);
      for (const CpuTarget target : supported_cpu_targets()) {
        const std::vector<float> all = product(matrix, tokens.view, target);
        for (size_t count = 1; count < kMost; ++count) {
          QuantizedInputs first = tokens.view;
          first.rows = count * rows_per_token;
          const std::vector<float> y = product(matrix, first, target);
          EXPECT_EQ(std::memcmp(y.data(), all.data(), y.size() * sizeof(float)), 0)
              << c.name() << " " << cpu_target_name(target) << " " << count << " " << rows_per_token;
        }
      }
    }
  }
}

// Inputs that are all 127 or -127, low bytes that are all -128, and codes at their ends reach the largest
// sums there are: what would saturate 16 bits does it here.
TEST(Strips, LargestSumsDoNotSaturate) {
  ThreadPool pool(1);
  for (const int bits : {2, 3, 4, 8}) {
    QuantizedWeight weight = random_weight({WeightFormula::kAffine, 16, 64, bits, 64}, 1);
    std::fill(weight.codes.begin(), weight.codes.end(), static_cast<uint8_t>((1 << bits) - 1));
    std::fill(weight.scales.begin(), weight.scales.end(), 1.f);
    std::fill(weight.zeros.begin(), weight.zeros.end(), 0.f);
    const StripMatrix matrix(weight, pool);
    for (const float sign : {1.f, -1.f}) {
      for (const CpuTarget target : supported_cpu_targets()) {
        Tokens tokens(matrix, 9, target);
        std::fill(tokens.codes.begin(), tokens.codes.end(), static_cast<int8_t>(127 * sign));
        std::fill(tokens.scales.begin(), tokens.scales.end(), 1.f);
        std::fill(tokens.sums.begin(), tokens.sums.end(), sign * 64 * 127);
        for (const float y : product(matrix, tokens.view, target)) {
          ASSERT_EQ(y, sign * 64.f * 127.f * static_cast<float>((1 << bits) - 1)) << bits << " bits";
        }
      }
    }
    for (const CpuTarget target : supported_cpu_targets()) {
      Tokens tokens(matrix, 9, target, 2);
      for (size_t i = 0; i < tokens.codes.size(); ++i) {
        tokens.codes[i] = static_cast<int8_t>(i / tokens.view.stride % 2 == 0 ? 127 : -128);
      }
      std::fill(tokens.scales.begin(), tokens.scales.end(), 1.f);
      for (const float y : product(matrix, tokens.view, target)) {
        ASSERT_EQ(y, 64.f * (256.f * 127.f - 128.f) * static_cast<float>((1 << bits) - 1)) << bits << " bits";
      }
    }
  }
}

// Scales, zero points and activations at the ends of their ranges: subnormal, huge, zero, of both signs, and
// spans that are not finite. Everything is multiplied in the same order, so even overflow is the same.
TEST(Strips, ExtremeValuesGiveTheSameBytes) {
  ThreadPool pool(1);
  constexpr float kScales[] = {0.f, 1e-40f, -1e-40f, 6e-8f, 3e38f, -3e38f, 65504.f, 1.f};
  constexpr float kInputs[] = {0.f, 1e-38f, -1e-30f, 3e38f, -3e38f, 1.f, INFINITY, -INFINITY, NAN};
  constexpr size_t kTokens = 13;
  for (const WeightCase& c : strip_cases()) {
    QuantizedWeight weight = random_weight(c, 16);
    const auto largest = static_cast<uint8_t>((1u << c.bits) - 1);
    const uint8_t least = c.formula == WeightFormula::kRowAbsmax ? 1 : 0;
    for (size_t i = 0; i < weight.codes.size(); ++i) weight.codes[i] = i / 3 % 2 == 0 ? largest : least;
    for (size_t i = 0; i < weight.scales.size(); ++i) weight.scales[i] = kScales[i % std::size(kScales)];
    for (size_t i = 0; i < weight.zeros.size(); ++i) weight.zeros[i] = i % 3 == 0 ? 255.f : 0.f;
    const StripMatrix matrix(weight, pool);
    Tokens tokens(matrix, kTokens, CpuTarget::kScalar);
    const size_t spans = matrix.view().span_ends.size();
    for (size_t i = 0; i < tokens.codes.size(); ++i) tokens.codes[i] = i / 5 % 2 == 0 ? -127 : 127;
    for (size_t i = 0; i < tokens.scales.size(); ++i) {
      // Only every third token has spans that are not finite: they would hide all others.
      const size_t choices = std::size(kInputs) - (i / spans % 3 == 0 ? 0 : 3);
      tokens.scales[i] = kInputs[i % choices] / 127.f;
    }
    const std::vector<float> scalar = product(matrix, tokens.view, CpuTarget::kScalar);
    for (const CpuTarget target : supported_cpu_targets()) {
      const std::vector<float> y = product(matrix, tokens.view, target);
      for (size_t i = 0; i < y.size(); ++i) {
        ASSERT_TRUE((std::isnan(y[i]) && std::isnan(scalar[i])) ||
                    std::memcmp(&y[i], &scalar[i], sizeof(float)) == 0)
            << c.name() << " " << cpu_target_name(target) << " " << i << ": " << y[i] << " " << scalar[i];
      }
    }
  }
}

// Worked by hand: the codes 0 1 2 3 0 1 2 3 as nibbles are 0x32103210, and 3 3 3 3 0 0 0 0 two bits higher
// 0x0000CCCC.
TEST(Strips, TwoBitsOfEightInputsLieAboveThoseOfTheEightBefore) {
  ThreadPool pool(1);
  QuantizedWeight weight = random_weight({WeightFormula::kAffine, 16, 32, 2, 32}, 1);
  std::fill(weight.codes.begin(), weight.codes.end(), uint8_t{0});
  const uint8_t codes[16] = {0, 1, 2, 3, 0, 1, 2, 3, 3, 3, 3, 3, 0, 0, 0, 0};
  std::copy_n(codes, 16, weight.codes.begin());                // output 0, inputs 0 to 15
  std::copy_n(codes, 16, weight.codes.begin() + 3 * 32 + 16);  // output 3, inputs 16 to 31
  const StripMatrix matrix(weight, pool);
  uint32_t words[2 * kStripOutputs];
  std::memcpy(words, matrix.view().codes, sizeof(words));
  std::vector<uint32_t> expected(2 * kStripOutputs);
  expected[0] = expected[kStripOutputs + 3] = 0x3210FEDCu;
  EXPECT_EQ(std::vector<uint32_t>(std::begin(words), std::end(words)), expected);
}

// The codes 0 to 7, eight times 5, eight times 0, and 7 0 0 0 0 0 0 4 as nibbles: 0x76543210, 0x55555555, 0,
// 0x40000007. Their two low bits as above, and of the high ones bit 0, 1, 2 and 3 of each nibble.
TEST(Strips, HighBitsOfThreeLieInALineOfTheirOwn) {
  ThreadPool pool(1);
  QuantizedWeight weight = random_weight({WeightFormula::kAffine, 16, 32, 3, 32}, 1);
  std::fill(weight.codes.begin(), weight.codes.end(), uint8_t{0});
  const uint8_t codes[32] = {0, 1, 2, 3, 4, 5, 6, 7, 5, 5, 5, 5, 5, 5, 5, 5,
                             0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 4};
  std::copy_n(codes, 32, weight.codes.begin() + 3 * 32);  // output 3
  const StripMatrix matrix(weight, pool);
  uint32_t words[3 * kStripOutputs];
  std::memcpy(words, matrix.view().codes, sizeof(words));
  std::vector<uint32_t> expected(3 * kStripOutputs);
  expected[3] = 0x76547654u;
  expected[kStripOutputs + 3] = 0x0000000Cu;
  expected[2 * kStripOutputs + 3] = 0xB333222Au;
  EXPECT_EQ(std::vector<uint32_t>(std::begin(words), std::end(words)), expected);
}

TEST(Strips, TwoAndThreeBitsTakeAsMany) {
  ThreadPool pool(1);
  for (const int bits : {2, 3}) {
    const StripMatrix matrix(random_weight({WeightFormula::kAffine, 64, 1024, bits, 128}, 1), pool);
    // Codes, float16 scales, byte zeros.
    EXPECT_EQ(matrix.bytes(), 64u * 1024 * static_cast<size_t>(bits) / 8 + 64u * 8 * (2 + 1));
  }
}

TEST(Strips, FourBitsTakeFourBits) {
  ThreadPool pool(1);
  const StripMatrix affine(random_weight({WeightFormula::kAffine, 64, 1024, 4, 128}, 1), pool);
  EXPECT_EQ(affine.bytes(), 64u * 1024 / 2 + 64u * 8 * (2 + 1));  // codes, float16 scales, byte zeros
  const StripMatrix symmetric(random_weight({WeightFormula::kAffine, 64, 1024, 4, 128, false, true}, 1),
                              pool);
  EXPECT_EQ(symmetric.bytes(), 64u * 1024 / 2 + 64u * 8 * 2);
  const StripMatrix codebook(random_weight({WeightFormula::kCodebook, 64, 1024, 4, 64}, 1), pool);
  EXPECT_FALSE(codebook.view().zeros != nullptr || codebook.view().offsets != nullptr);
}

TEST(StripMatrix, WordsOfCodesGiveTheBytesOfCodes) {
  ThreadPool pool(2);
  size_t tried[5] = {};  // by bits
  for (const WeightCase& c : strip_cases()) {
    if (!CodeWords::can_hold(c.bits, c.in_features)) continue;
    const QuantizedWeight weight = random_weight(c, 5);
    const StripMatrix expected(weight, pool);
    const std::span codes(expected.view().codes,
                          expected.view().num_strips() * expected.view().strip_bytes());
    for (const bool rows_first : {false, true}) {
      const QuantizedWeight packed = in_words(weight, rows_first);
      EXPECT_EQ(with_byte_codes(packed).codes, weight.codes) << c.name();
      const StripMatrix matrix(packed, pool);
      EXPECT_EQ(std::memcmp(matrix.view().codes, codes.data(), codes.size()), 0) << c.name() << rows_first;
      ++tried[c.bits];
    }
  }
  EXPECT_GE(tried[2], 10u);
  EXPECT_GE(tried[4], 20u);
}

TEST(StripMatrix, SuitsWhatFillsWholeBlocks) {
  using enum WeightFormula;
  EXPECT_TRUE(StripMatrix::suits(random_weight({kAffine, 4, 576, 4, 128}, 1)));
  EXPECT_TRUE(StripMatrix::suits(random_weight({kAffine, 4, 256, 4, 32, true}, 1)));
  EXPECT_FALSE(StripMatrix::suits(random_weight({kAffine, 4, 256, 4, 16}, 1)));  // would double it
  EXPECT_TRUE(StripMatrix::suits(random_weight({kCodebook, 4, 576, 4, 64}, 1)));
  EXPECT_FALSE(StripMatrix::suits(random_weight({kCodebook, 4, 480, 4, 64}, 1)));  // crosses rows
}

}  // namespace
}  // namespace nibble::kernels
