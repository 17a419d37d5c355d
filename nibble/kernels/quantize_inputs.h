#ifndef NIBBLE_KERNELS_QUANTIZE_INPUTS_H_
#define NIBBLE_KERNELS_QUANTIZE_INPUTS_H_

// From float activations to the int8 ones that strips.h multiplies. One token at a time, so that no
// token sees another.

#include <cstddef>
#include <cstdint>
#include <span>

#include "nibble/base/cpu_target.h"
#include "nibble/kernels/strips.h"

namespace nibble::kernels {

// Where a token's quantized form goes.
struct QuantizedToken {
  int8_t* codes;  // [num_blocks * kBlockInputs], aligned to 32
  float* scales;  // [num_spans]
  float* sums;    // [num_groups]
};

// Symmetric, one scale for each span of w: scale = max|x| / 127, code = rne(x / scale).
// A span with an infinity or a NaN gets the scale NaN, so that its outputs say so; one whose
// largest magnitude is below 1e-30 gets 0. x: [num_blocks * kBlockInputs].
// Each eight codes are stored in the order 0 2 4 6 1 3 5 7 where the weight's codes are not bytes.
//
// Returns whether the token is spiky: its spans have inputs so much larger than the others that these drown
// in the rounding, which is expected to take more than 1.35 % (root mean square) of what is left of the token
// without the largest input of each span. Normally distributed inputs lose 0.5 % with a scale for each 32.
// Made of the codes and scales alone: the same on every target.
bool quantize_inputs(const float* x, const Strips& w, const QuantizedToken& out,
                     CpuTarget target = cpu_target());

// The same with 16 bits: scale = max|x| / 32512, code = rne(x / scale) = 256 * high + low, the high bytes in
// out.codes, the low ones, -128 to 127, in `low`, in the same order. Spans of w: kMostBlocksOf16Bits at most.
void quantize_inputs_16(const float* x, const Strips& w, const QuantizedToken& out, int8_t* low,
                        CpuTarget target = cpu_target());

// What the codes leave of x: x - scale * code, in out. Quantized again, it gives a second row of codes. x,
// out: [num_blocks * kBlockInputs]; out may be x.
void quantization_residual(const float* x, const Strips& w, const QuantizedToken& codes, float* out,
                           CpuTarget target = cpu_target());

// What turns a product of LLM.int8 codes, times the two largest magnitudes, into a number: 1 / 127^2,
// with the slip of digits in bitsandbytes' CPU code (its CUDA code has 6.200012e-05). A relative 2e-5
// is small, but it moves activations over the rounding boundaries of the next layer.
inline constexpr float kInt8ProductScale = 6.200124e-05f;

// LLM.int8 (arXiv:2208.07339): inputs in float16; those whose magnitude reaches `threshold` (0: none)
// are outliers and get code 0; the others share one scale. Returns their largest magnitude a:
// code = rne(x * (1 / a * 127)). outliers: room for `count`. codes: room for the next multiple of
// kBlockInputs, filled with zeros.
struct Int8Row {
  float absmax;  // NaN where an input that is no outlier is not finite
  int32_t codes_sum;
  size_t num_outliers;
};
Int8Row quantize_int8_row(const float* x, size_t count, float threshold, int8_t* codes, uint32_t* outliers,
                          CpuTarget target = cpu_target());

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_QUANTIZE_INPUTS_H_
