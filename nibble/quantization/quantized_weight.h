#ifndef NIBBLE_QUANTIZATION_QUANTIZED_WEIGHT_H_
#define NIBBLE_QUANTIZATION_QUANTIZED_WEIGHT_H_

// What every format decodes to and every kernel packs from: the waist of the hourglass.

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "nibble/base/dtype.h"
#include "nibble/base/tensor.h"

namespace nibble {

// How a code becomes a weight. round() is one rounding to the dtype `rounding`.
enum class WeightFormula {
  kAffine,     // round(scales[g][o] * (code - zeros[g][o]))          GPTQ; AWQ gemm, gemv, marlin
  kOffset,     // round(fma(code, scales[g][o], zeros[g][o]))         AWQ gemv_fast, llm-awq
  kCodebook,   // codebook[code] * absmax[(o * in_features + i) / group_size], in float32
  kRowAbsmax,  // ((code - 128) * absmax[o]) * float(1 / 127), in float32: LLM.int8
};

// Codes of 2 or 4 bits, n = 16 or 8 neighbouring inputs of an output in 32 bits, the first in the lowest:
// inputs n i to n i + n - 1 of output o are word i * input_stride + o * output_stride. GPTQ's files have them
// so, and of 4 bits the kernels.
struct CodeWords {
  Tensor words;  // a view into a mapped file, or made of one
  size_t input_stride = 0;
  size_t output_stride = 0;

  static constexpr size_t codes_per_word(int bits) { return 32 / static_cast<size_t>(bits); }
  // Whether such words can hold a row: none reaches past its end.
  static constexpr bool can_hold(int bits, size_t in_features) {
    return (bits == 2 || bits == 4) && in_features % codes_per_word(bits) == 0;
  }

  const std::byte* address(size_t i, size_t o) const {
    return words.bytes.data() + (i * input_stride + o * output_stride) * sizeof(uint32_t);
  }
  uint32_t at(size_t i, size_t o) const {
    uint32_t word = 0;
    std::memcpy(&word, address(i, o), sizeof(word));
    return word;
  }
};

// A linear layer's weight [out_features, in_features] as codes. y = x W^T.
struct QuantizedWeight {
  WeightFormula formula = WeightFormula::kAffine;
  size_t out_features = 0;
  size_t in_features = 0;
  int bits = 4;  // 2 to 8: codes are below 2^bits

  std::vector<uint8_t> codes;  // [out_features, in_features], one per byte; empty where there are words
  // Only where a reader was asked for them (CodeStorage), and CodeWords::can_hold(bits, in_features).
  std::optional<CodeWords> words;

  // kAffine, kOffset: inputs per group (the last one may be short); group of input i is g_idx[i],
  // or i / group_size where g_idx is empty. in_features for one group.
  // kCodebook: consecutive elements of the flattened weight per block; blocks may cross rows.
  size_t group_size = 0;
  size_t num_groups = 0;        // kAffine, kOffset
  std::vector<uint32_t> g_idx;  // [in_features], or empty

  std::vector<float> scales;    // kAffine, kOffset: [num_groups, out_features]
  std::vector<float> zeros;     // kAffine, kOffset: [num_groups, out_features]
  std::vector<float> absmax;    // kCodebook: [ceil(out * in / group_size)]; kRowAbsmax: [out_features]
  std::vector<float> codebook;  // kCodebook: [2^bits]

  DType rounding = DType::kF32;  // of kAffine and kOffset: the dtype of the stored scales
  DType dtype = DType::kF16;     // what the original library dequantizes to

  // LLM.int8: inputs whose magnitude reaches this stay in floating point; 0: none do.
  float outlier_threshold = 0.f;

  size_t group_of(size_t input) const { return g_idx.empty() ? input / group_size : g_idx[input]; }
};

// The same weight with its codes in bytes.
QuantizedWeight with_byte_codes(QuantizedWeight weight);

// The OR of the codes: below 2^bits where every code is.
uint8_t union_of(std::span<const uint8_t> codes);

// Rows [begin, end) as float, exactly as the formula says: [end - begin, in_features]. The plain
// reference for every kernel. The codes are in bytes.
void dequantize_rows(const QuantizedWeight& weight, size_t begin, size_t end, float* out);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_QUANTIZED_WEIGHT_H_
