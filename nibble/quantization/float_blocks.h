#ifndef NIBBLE_QUANTIZATION_FLOAT_BLOCKS_H_
#define NIBBLE_QUANTIZATION_FLOAT_BLOCKS_H_

// What bitsandbytes' quantizers do with every element of a weight, several elements at a time, with the
// instructions that every x86-64 has.

#include <cstdint>
#include <span>

#include "nibble/base/tensor.h"

namespace nibble {

// Elements [begin, begin + count) of a tensor of F16, BF16 or F32, as float.
void load_floats(const Tensor& tensor, size_t begin, size_t count, float* out);

// The largest magnitude, or what is no number: infinity is larger than any, NaN larger than infinity.
float largest_magnitude(std::span<const float> values);

// value * factor, no further from 0 than 1.
void scale_and_clamp(std::span<float> values, float factor);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FLOAT_BLOCKS_H_
