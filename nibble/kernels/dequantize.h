#ifndef NIBBLE_KERNELS_DEQUANTIZE_H_
#define NIBBLE_KERNELS_DEQUANTIZE_H_

// From packed codes to float weights, a run of inputs that share a scale at a time. Every function
// gives the bits of the formula in quantized_weight.h, on every instruction set.

#include <cstddef>
#include <cstdint>

#include "nibble/base/cpu_target.h"
#include "nibble/base/dtype.h"

namespace nibble::kernels {

inline constexpr size_t kPackedAlign = 16;    // bytes that unpack_codes reads at once
inline constexpr size_t kUnpackedAlign = 64;  // codes that it writes at once

// Codes of `width` bits (2, 4 or 8), the first in the lowest bits: 4 bits, 0x21 0x43 holds 1 2 3 4.
// One per byte afterwards. `packed` is readable up to the next multiple of kPackedAlign bytes,
// `codes` writable up to the next multiple of kUnpackedAlign.
void unpack_codes(const uint8_t* packed, int width, size_t count, uint8_t* codes,
                  CpuTarget target = cpu_target());

// out[i] = round(scale * (codes[i] - zero)), rounded once to `rounding`.
void dequantize_affine(const uint8_t* codes, size_t count, float scale, float zero, DType rounding,
                       float* out, CpuTarget target = cpu_target());

// out[i] = round(fma(codes[i], scale, offset)).
void dequantize_offset(const uint8_t* codes, size_t count, float scale, float offset, DType rounding,
                       float* out, CpuTarget target = cpu_target());

// out[i] = table[codes[i]] * absmax. table: [table_size], 16 entries at least.
void dequantize_table(const uint8_t* codes, size_t count, const float* table, size_t table_size, float absmax,
                      float* out, CpuTarget target = cpu_target());

// out[i] = ((codes[i] - 128) * absmax) * float(1 / 127).
void dequantize_row_absmax(const uint8_t* codes, size_t count, float absmax, float* out,
                           CpuTarget target = cpu_target());

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_DEQUANTIZE_H_
