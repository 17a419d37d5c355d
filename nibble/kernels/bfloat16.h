#ifndef NIBBLE_KERNELS_BFLOAT16_H_
#define NIBBLE_KERNELS_BFLOAT16_H_

// Arrays of bfloat16 to float and back: the bits of bf16_to_float and float_to_bf16 (base/float16.h).

#include <cstddef>
#include <cstdint>

#include "nibble/base/cpu_target.h"

namespace nibble::kernels {

// from, to: [count]; they may not overlap.
void bf16_to_floats(const uint16_t* from, size_t count, float* to, CpuTarget target = cpu_target());
void floats_to_bf16(const float* from, size_t count, uint16_t* to, CpuTarget target = cpu_target());

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_BFLOAT16_H_
