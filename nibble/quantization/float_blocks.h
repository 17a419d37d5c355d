#ifndef NIBBLE_QUANTIZATION_FLOAT_BLOCKS_H_
#define NIBBLE_QUANTIZATION_FLOAT_BLOCKS_H_

// What bitsandbytes' quantizers do with every element of a weight, a vector of elements at a time. The bits
// are the same with every instruction set.

#include <array>
#include <cstdint>
#include <span>

#include "nibble/base/cpu_target.h"
#include "nibble/base/tensor.h"

namespace nibble {

// Elements [begin, begin + count) of a tensor of F16, BF16 or F32, as float.
void load_floats(const Tensor& tensor, size_t begin, size_t count, float* out,
                 CpuTarget target = cpu_target());

// The largest magnitude, or what is no number: infinity is larger than any, NaN larger than infinity.
float largest_magnitude(std::span<const float> values, CpuTarget target = cpu_target());

// Of each `blocksize` values in turn; they are whole blocks.
void block_magnitudes(std::span<const float> values, size_t blocksize, float* largest,
                      CpuTarget target = cpu_target());

// value * factor of its block, no further from 0 than 1; whole blocks.
void scale_and_clamp(std::span<float> values, size_t blocksize, const float* factors,
                     CpuTarget target = cpu_target());

// A code by intervals: codes[i] where i of the rising bounds are below the value.
struct CodeIntervals {
  std::array<float, 15> bounds;
  std::array<int32_t, 16> codes;
};

// The codes of finite values, two to a byte, the first in its high half. An even number of values.
void pack_codes(std::span<const float> values, const CodeIntervals& intervals, uint8_t* packed,
                CpuTarget target = cpu_target());

// value * factor to the nearest integer, ties to even; it is within -128 to 127.
void scale_and_round(std::span<const float> values, float factor, int8_t* codes,
                     CpuTarget target = cpu_target());

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FLOAT_BLOCKS_H_
