#ifndef NIBBLE_KERNELS_STRIPS_H_
#define NIBBLE_KERNELS_STRIPS_H_

// Products with an integer weight and int8 activations: the fast path. docs/kernels.md tells why the
// layout is what it is.
//
// Sixteen outputs make a strip. A 64-byte line of a strip holds the next few inputs of all sixteen,
// output n in the 32-bit lane n, so that a lane collects its own output and nothing is ever added
// across lanes. Codes are one linear stream, scales a second, zero points a third.

#include <cstddef>
#include <cstdint>
#include <span>

#include "nibble/base/cpu_target.h"
#include "nibble/base/matrix_view.h"

namespace nibble::kernels {

inline constexpr size_t kStripOutputs = 16;
inline constexpr size_t kBlockInputs = 32;  // groups of inputs are filled up to whole blocks
inline constexpr size_t kLineBytes = 64;

// How the codes of a lane lie in its four bytes.
enum class CodeForm {
  kTwoBits,  // as the nibbles of inputs 0 to 7, with those of inputs 8 to 15 two bits above them
  // Three lines for a block: two as kTwoBits of the two low bits, and one of the high bits, which has in bit
  // e of each nibble those of the inputs 8 e to 8 e + 7, where kNibbles would have the codes.
  kThreeBits,
  kNibbles,      // inputs 0 1 | 2 3 | 4 5 | 6 7, the first of each pair in the low half
  kNibbleTable,  // the same, and each is an index into a table of 16 bytes
  kBytes,        // inputs 0 | 1 | 2 | 3
};

// As many as a code has bits.
constexpr size_t lines_per_block(CodeForm form) {
  switch (form) {
    case CodeForm::kTwoBits:
      return 2;
    case CodeForm::kThreeBits:
      return 3;
    case CodeForm::kNibbles:
    case CodeForm::kNibbleTable:
      return 4;
    case CodeForm::kBytes:
      break;
  }
  return 8;
}

// Weight of output n and input k, in group g: scale[g][n] * (code - zero[g][n]), or
// scale[g][n] * code + offset[g][n]. Borrowed.
struct Strips {
  size_t out_features;  // the last strip is padded to 16
  size_t num_blocks;    // of kBlockInputs
  // Spans of blocks share an activation scale, groups of spans a weight scale.
  std::span<const uint32_t> span_ends;   // [num_spans]: the block after the last of the span
  std::span<const uint32_t> group_ends;  // [num_groups]: the span after the last of the group

  CodeForm form;
  const uint8_t* codes;  // [strips][num_blocks][lines of kLineBytes]
  const uint8_t* table;  // kNibbleTable: [16]

  bool half_scales;      // scales and offsets are float16 bits, else float
  const void* scales;    // [strips][num_groups][16]
  const uint8_t* zeros;  // [strips][num_groups][16]; null: `zero` everywhere
  float zero;
  const void* offsets;  // [strips][num_groups][16]; null: zero points instead

  size_t num_strips() const { return (out_features + kStripOutputs - 1) / kStripOutputs; }
  size_t strip_bytes() const { return num_blocks * lines_per_block(form) * kLineBytes; }
  size_t unpacked_bytes() const { return num_blocks * kBlockInputs * kStripOutputs; }
};

// Spans of 16-bit activations are at most as long, so that their sums fit 32 bits: 255 * 2^15 * 128 < 2^31.
inline constexpr size_t kMostBlocksOf16Bits = 4;

// Tokens as quantize_inputs() left them, a row of bytes for each; or as quantize_inputs_16() did, two rows
// one behind the other, of which a code is 256 * high + low. Borrowed.
struct QuantizedInputs {
  size_t rows;
  size_t rows_per_token;  // 1 or 2
  const int8_t* codes;    // [rows, num_blocks * kBlockInputs]
  size_t stride;          // of codes
  const float* scales;    // [tokens, num_spans]
  size_t scale_stride;    // num_spans, or 0 where all tokens have the same
  const float* sums;      // [tokens, num_groups]: of scale * code over the group
};

// Outputs of the strips [begin, end) for all tokens; y: [tokens, outputs of these strips], without the
// padding of the last.
// Sums within a span are integers and exact; from there on, the same float operations in the same
// order whatever the blocking and the instruction set: the bits of y depend on x's row and w alone.
// scratch: strips_scratch_bytes() of the same target, aligned to 64.
void strips_product(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end, MatrixView<float> y,
                    uint8_t* scratch, CpuTarget target = cpu_target());
// Of w, these two need the form and the number of blocks alone.
size_t strips_scratch_bytes(const Strips& w, CpuTarget target = cpu_target());
// How many strips are best multiplied in one call: little enough to even out what a core loses.
size_t strips_per_call(const Strips& w, size_t rows, CpuTarget target = cpu_target());

// LLM.int8: the inputs that stay in floating point. sums[n] = sum over k in `outliers` of
// x[k] * (((code - 128) * scale[n]) * float(1 / 127)) for the 16 outputs of a strip, in that order.
// w: kBytes in one group, positions are inputs, float scales. x: a token. sums: [16]
void strip_outliers(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                    float* sums, CpuTarget target = cpu_target());

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_STRIPS_H_
