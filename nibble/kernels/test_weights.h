#ifndef NIBBLE_KERNELS_TEST_WEIGHTS_H_
#define NIBBLE_KERNELS_TEST_WEIGHTS_H_

// Random weights and inputs for the tests of kernels and of linear layers.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "nibble/base/float16.h"
#include "nibble/base/matrix_view.h"
#include "nibble/quantization/quantized_weight.h"

namespace nibble {

struct WeightCase {
  WeightFormula formula;
  size_t out_features;
  size_t in_features;
  int bits;
  size_t group_size;
  bool act_order = false;    // a random g_idx
  bool equal_zeros = false;  // symmetric
  bool fractional_zeros = false;
  DType rounding = DType::kF16;
  float outlier_threshold = 0.f;

  std::string name() const {
    return "formula=" + std::to_string(static_cast<int>(formula)) + " N=" + std::to_string(out_features) +
           " K=" + std::to_string(in_features) + " bits=" + std::to_string(bits) +
           " group_size=" + std::to_string(group_size) + (act_order ? " act_order" : "");
  }
};

inline float rounded_to(float value, DType dtype) {
  return dtype == DType::kF16    ? fp16_to_float(float_to_fp16(value))
         : dtype == DType::kBF16 ? bf16_to_float(float_to_bf16(value))
                                 : value;
}

// Scales of both signs, and some that are zero.
inline QuantizedWeight random_weight(const WeightCase& c, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  QuantizedWeight w;
  w.formula = c.formula;
  w.out_features = c.out_features;
  w.in_features = c.in_features;
  w.bits = c.bits;
  w.rounding = c.rounding;
  w.outlier_threshold = c.outlier_threshold;
  w.codes.resize(c.out_features * c.in_features);
  for (uint8_t& code : w.codes) code = static_cast<uint8_t>(rng() % (1u << c.bits));
  if (c.formula == WeightFormula::kRowAbsmax) {
    for (uint8_t& code : w.codes) code = std::max<uint8_t>(code, 1);  // -127 to 127
    for (size_t o = 0; o < c.out_features; ++o) w.absmax.push_back(o % 7 == 3 ? 0.f : std::fabs(normal(rng)));
    return w;
  }
  w.group_size = c.group_size;
  if (c.formula == WeightFormula::kCodebook) {
    w.absmax.resize((w.codes.size() + c.group_size - 1) / c.group_size);
    for (float& a : w.absmax) a = rng() % 9 == 0 ? 0.f : std::fabs(normal(rng)) * 0.1f;
    w.codebook.resize(size_t{1} << c.bits);
    for (float& v : w.codebook) v = std::clamp(normal(rng) * 0.4f, -1.f, 1.f);
    w.codebook.back() = 1.f;
    return w;
  }
  w.num_groups = (c.in_features + c.group_size - 1) / c.group_size;
  const size_t levels = size_t{1} << c.bits;
  for (size_t i = 0; i < w.num_groups * c.out_features; ++i) {
    w.scales.push_back(rng() % 11 == 0 ? 0.f : rounded_to(normal(rng) * 0.02f, c.rounding));
    float zero = c.equal_zeros ? static_cast<float>(levels / 2) : static_cast<float>(rng() % (levels + 1));
    if (c.fractional_zeros) zero = rounded_to(zero + normal(rng), c.rounding);
    if (c.formula == WeightFormula::kOffset) zero = rounded_to(normal(rng) * 0.1f, c.rounding);
    w.zeros.push_back(zero);
  }
  if (c.act_order) {
    std::vector<size_t> order(c.in_features);
    std::iota(order.begin(), order.end(), size_t{0});
    std::shuffle(order.begin(), order.end(), rng);
    w.g_idx.resize(c.in_features);
    for (size_t p = 0; p < order.size(); ++p) w.g_idx[order[p]] = static_cast<uint32_t>(p / c.group_size);
  }
  return w;
}

// The same weight with its codes in words, an output's side by side or an input's: CodeWords::can_hold().
inline QuantizedWeight in_words(QuantizedWeight weight, bool rows_first) {
  const size_t out = weight.out_features;
  const auto bits = static_cast<size_t>(weight.bits);
  const size_t per_word = CodeWords::codes_per_word(weight.bits);
  const size_t row_words = weight.in_features / per_word;
  CodeWords words = {{}, rows_first ? 1 : out, rows_first ? row_words : 1};
  std::vector<uint32_t> values(out * row_words);
  for (size_t o = 0; o < out; ++o) {
    for (size_t i = 0; i < weight.in_features; ++i) {
      const uint32_t code = weight.codes[o * weight.in_features + i];
      values[i / per_word * words.input_stride + o * words.output_stride] |= code << (bits * (i % per_word));
    }
  }
  words.words = Tensor::of(DType::kU32, {values.size()}, values);
  weight.words = std::move(words);
  weight.codes.clear();
  return weight;
}

// No spikes: int8 codes are enough for them.
inline std::vector<float> normal_inputs(size_t tokens, size_t in_features, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(tokens * in_features);
  for (float& v : x) v = normal(rng);
  return x;
}

// Some inputs are far larger than the rest, as in the down projections of real models.
inline std::vector<float> random_inputs(size_t tokens, size_t in_features, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(tokens * in_features);
  for (float& v : x) v = normal(rng) * (rng() % 97 == 0 ? 20.f : 1.f);
  return x;
}

// Every formula and width, and the shapes where remainders are.
inline const std::vector<WeightCase>& weight_cases() {
  using enum WeightFormula;
  static const std::vector<WeightCase> cases = {
      {kAffine, 48, 256, 4, 128},
      {kAffine, 33, 576, 4, 128},  // ragged last group: 64
      {kAffine, 17, 256, 4, 32, true},
      {kAffine, 16, 256, 4, 64, false, true},
      {kAffine, 20, 256, 4, 64, false, false, true},
      {kAffine, 1, 128, 4, 128},
      {kAffine, 5, 1, 4, 1},
      {kAffine, 7, 33, 4, 33},
      {kAffine, 7, 300, 4, 300},
      {kAffine, 9, 100, 4, 30, true},
      {kAffine, 40, 256, 8, 128},
      {kAffine, 19, 200, 8, 64, true},
      {kAffine, 18, 160, 2, 32},
      {kAffine, 33, 576, 2, 128},
      {kAffine, 17, 176, 2, 64, true},  // words of 16 codes, but no whole blocks
      {kAffine, 16, 256, 2, 256, false, true},
      {kOffset, 20, 96, 2, 32},
      {kAffine, 18, 160, 3, 32},
      {kAffine, 33, 576, 3, 128},
      {kAffine, 17, 176, 3, 64, true},
      {kAffine, 16, 256, 3, 256, false, true},
      {kOffset, 20, 96, 3, 32},
      {kAffine, 18, 192, 5, 64, false, true},
      {kAffine, 18, 192, 6, 64, false, false, false, DType::kBF16},
      {kAffine, 18, 192, 7, 64, false, false, false, DType::kF32},
      {kOffset, 33, 256, 4, 64},
      {kOffset, 16, 256, 4, 128, false, false, false, DType::kBF16},
      {kCodebook, 33, 256, 4, 64},
      {kCodebook, 9, 576, 4, 64},
      {kCodebook, 7, 100, 4, 64},   // blocks cross rows
      {kCodebook, 6, 64, 4, 4096},  // one block spans all rows
      {kCodebook, 8, 64, 4, 256},   // four rows to a block
      {kCodebook, 1, 1, 4, 64},
      {kCodebook, 5, 96, 8, 32},
  };
  return cases;
}

inline const std::vector<WeightCase>& llm_int8_cases() {
  using enum WeightFormula;
  static const std::vector<WeightCase> cases = {
      {kRowAbsmax, 33, 256, 8, 0, false, false, false, DType::kF16, 6.f},
      {kRowAbsmax, 16, 100, 8, 0, false, false, false, DType::kF16, 0.f},
      {kRowAbsmax, 5, 33, 8, 0, false, false, false, DType::kF16, 2.f},
      {kRowAbsmax, 1, 1, 8, 0, false, false, false, DType::kF16, 6.f},
  };
  return cases;
}

inline std::vector<float> all_weights(const QuantizedWeight& w) {
  std::vector<float> rows(w.out_features * w.in_features);
  dequantize_rows(w, 0, w.out_features, rows.data());
  return rows;
}

// What a product should be, and how large its terms are: for bounds of rounding errors.
struct ExactProduct {
  std::vector<double> y;          // [tokens, out_features]
  std::vector<double> magnitude;  // the same with |x|, |w| and |bias|
};

inline ExactProduct exact_product(const std::vector<float>& weight, const std::vector<float>& bias,
                                  MatrixView<const float> x) {
  const size_t out = weight.size() / x.cols();
  ExactProduct result;
  for (size_t t = 0; t < x.rows(); ++t) {
    for (size_t n = 0; n < out; ++n) {
      double sum = bias.empty() ? 0.0 : double{bias[n]};
      double magnitude = std::fabs(sum);
      for (size_t k = 0; k < x.cols(); ++k) {
        const double product = double{x.row(t)[k]} * double{weight[n * x.cols() + k]};
        sum += product;
        magnitude += std::fabs(product);
      }
      result.y.push_back(sum);
      result.magnitude.push_back(magnitude);
    }
  }
  return result;
}

}  // namespace nibble

#endif  // NIBBLE_KERNELS_TEST_WEIGHTS_H_
