#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "nibble/base/check.h"
#include "nibble/base/float16.h"
#include "nibble/quantization/formats/bit_spread.h"
#include "nibble/quantization/formats/formats.h"
#include "nibble/quantization/quantized_weight.h"

namespace nibble {
namespace {

constexpr float kOneOver127 = 7.874015718698502e-3f;  // bitsandbytes' constant, float(1 / 127)

// A double as the float that rounds to fp16 or bf16 as the double itself would: where it lies
// between two floats, the one with the odd last bit, which no later tie can mistake for exact.
float to_float_round_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || !std::isfinite(nearest)) return nearest;
  if ((std::bit_cast<uint32_t>(nearest) & 1u) != 0) return nearest;
  const float inf = std::numeric_limits<float>::infinity();
  return std::nextafterf(nearest, value > static_cast<double>(nearest) ? inf : -inf);
}

float rounded(float value, DType dtype) {
  if (dtype == DType::kF16) return fp16_to_float(float_to_fp16(value));
  if (dtype == DType::kBF16) return bf16_to_float(float_to_bf16(value));
  return value;
}

// Calls fn(begin, end, group) for runs of inputs that share a group, so that only a shuffled g_idx
// costs a look-up for each input.
template <class Fn>
void for_each_run(const QuantizedWeight& w, Fn fn) {
  for (size_t begin = 0; begin < w.in_features;) {
    const size_t length = w.g_idx.empty() ? w.group_size : 1;
    const size_t end = begin + std::min(length, w.in_features - begin);
    fn(begin, end, w.group_of(begin));
    begin = end;
  }
}

void affine_row(const QuantizedWeight& w, size_t o, float* out) {
  const uint8_t* codes = w.codes.data() + o * w.in_features;
  for_each_run(w, [&](size_t begin, size_t end, size_t group) {
    const float scale = w.scales[group * w.out_features + o];
    const float zero = w.zeros[group * w.out_features + o];
    // The difference is a small integer and a half scale has at most 11 bits: the product is exact
    // in float, so that there is one rounding.
    for (size_t i = begin; i < end; ++i) {
      out[i] = rounded(scale * (static_cast<float>(codes[i]) - zero), w.rounding);
    }
  });
}

void offset_row(const QuantizedWeight& w, size_t o, float* out) {
  const uint8_t* codes = w.codes.data() + o * w.in_features;
  for_each_run(w, [&](size_t begin, size_t end, size_t group) {
    const float scale = w.scales[group * w.out_features + o];
    const float zero = w.zeros[group * w.out_features + o];
    for (size_t i = begin; i < end; ++i) {
      const float code = static_cast<float>(codes[i]);
      if (w.rounding == DType::kF32) {
        out[i] = std::fma(code, scale, zero);
      } else {
        const double sum = std::fma(double{code}, double{scale}, double{zero});
        out[i] = rounded(to_float_round_odd(sum), w.rounding);
      }
    }
  });
}

void codebook_row(const QuantizedWeight& w, size_t o, float* out) {
  const size_t first = o * w.in_features;  // of the row, in the flattened weight
  for (size_t i = 0; i < w.in_features;) {
    const size_t block = (first + i) / w.group_size;
    const size_t end = std::min(w.in_features, (block + 1) * w.group_size - first);
    for (; i < end; ++i) out[i] = w.codebook[w.codes[first + i]] * w.absmax[block];
  }
}

void row_absmax_row(const QuantizedWeight& w, size_t o, float* out) {
  for (size_t i = 0; i < w.in_features; ++i) {
    const float code = static_cast<float>(w.codes[o * w.in_features + i]) - 128.f;
    out[i] = code * w.absmax[o] * kOneOver127;
  }
}

}  // namespace

QuantizedWeight with_byte_codes(QuantizedWeight weight) {
  if (!weight.words) return weight;
  const CodeWords words = *std::exchange(weight.words, std::nullopt);
  weight.codes.resize(weight.out_features * weight.in_features);
  const size_t per_word = CodeWords::codes_per_word(weight.bits);
  for (size_t o = 0; o < weight.out_features; ++o) {
    uint8_t* const row = weight.codes.data() + o * weight.in_features;
    for (size_t i = 0; i < weight.in_features; i += 8) {
      const uint32_t word = words.at(i / per_word, o);
      const uint64_t eight = weight.bits == 2 ? spread<2>(word >> i % per_word * 2) : spread<4>(word);
      std::memcpy(row + i, &eight, sizeof(eight));
    }
  }
  return weight;
}

uint8_t union_of(std::span<const uint8_t> codes) {
  uint64_t words[4] = {};  // chains that do not wait for each other
  size_t i = 0;
  for (; i + sizeof(words) <= codes.size(); i += sizeof(words)) {
    uint64_t next[4];
    std::memcpy(next, codes.data() + i, sizeof(next));
    for (size_t k = 0; k < 4; ++k) words[k] |= next[k];
  }
  uint64_t all = words[0] | words[1] | words[2] | words[3];
  for (; i < codes.size(); ++i) all |= codes[i];
  for (int half = 32; half >= 8; half /= 2) all |= all >> half;
  return static_cast<uint8_t>(all);
}

void dequantize_rows(const QuantizedWeight& weight, size_t begin, size_t end, float* out) {
  NIBBLE_CHECK(begin <= end && end <= weight.out_features);
  for (size_t o = begin; o < end; ++o, out += weight.in_features) {
    switch (weight.formula) {
      case WeightFormula::kAffine:
        affine_row(weight, o, out);
        break;
      case WeightFormula::kOffset:
        offset_row(weight, o, out);
        break;
      case WeightFormula::kCodebook:
        codebook_row(weight, o, out);
        break;
      case WeightFormula::kRowAbsmax:
        row_absmax_row(weight, o, out);
        break;
    }
  }
}

Expected<Tensor> dequantize(const QuantizedWeight& weight, std::optional<DType> dtype) {
  const DType target = dtype.value_or(weight.dtype);
  std::vector<float> values(weight.out_features * weight.in_features);
  dequantize_rows(weight, 0, weight.out_features, values.data());
  return convert_tensor(Tensor::of(DType::kF32, {weight.out_features, weight.in_features}, std::move(values)),
                        target);
}

}  // namespace nibble
