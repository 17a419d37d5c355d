#ifndef NIBBLE_KERNELS_STRIPS_TARGETS_H_
#define NIBBLE_KERNELS_STRIPS_TARGETS_H_

// strips_product for each instruction set; strips.cc chooses.

#include <algorithm>

#include "nibble/kernels/strips.h"

namespace nibble::kernels {

// Codes as the inner loop meets them: those of a CodeForm, or a strip that serves many tokens and was
// unpacked first, whose codes are still known to be below 16.
enum class Form { kTwoBits, kThreeBits, kNibbles, kNibbleTable, kBytes, kSmallBytes };

constexpr bool is_below_16(Form form) { return form != Form::kNibbleTable && form != Form::kBytes; }

// Strips that many rows are multiplied by at a time where there are tiles (strips_wide-inl.h): each row is
// read once for all of them, and unpacked they fit the L2 cache beside the rows. An even number.
inline constexpr size_t kWideStrips = 8;
inline size_t wide_strips_at_once(const Strips& w) {
  constexpr size_t kMostBytes = size_t{512} << 10;
  return std::clamp<size_t>(kMostBytes / w.unpacked_bytes() / 2 * 2, 2, kWideStrips);
}

void strips_product_scalar(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                           MatrixView<float> y, uint8_t* scratch);
void strips_product_avx2(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                         MatrixView<float> y, uint8_t* scratch);
void strips_product_avx_vnni(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                             MatrixView<float> y, uint8_t* scratch);
void strips_product_avx512(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                           MatrixView<float> y, uint8_t* scratch);
// For many rows, 16 at least; for fewer, and for outliers, what is there for AVX-512.
void strips_product_amx(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                        MatrixView<float> y, uint8_t* scratch);
void strips_product_neon(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                         MatrixView<float> y, uint8_t* scratch);
void strips_product_dotprod(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                            MatrixView<float> y, uint8_t* scratch);
void strips_product_i8mm(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                         MatrixView<float> y, uint8_t* scratch);

// The same for a codebook, with the byte permutation of AVX-512 VBMI (Ice Lake, Zen 4). has_vbmi(): whether
// this machine has that; only where it has AVX-512.
bool has_vbmi();
void strips_product_avx512_vbmi(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                                MatrixView<float> y, uint8_t* scratch);

void strip_outliers_scalar(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                           float* sums);
void strip_outliers_avx2(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                         float* sums);
void strip_outliers_avx_vnni(const Strips& w, size_t strip, const float* x,
                             std::span<const uint32_t> outliers, float* sums);
void strip_outliers_avx512(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                           float* sums);
void strip_outliers_neon(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                         float* sums);
void strip_outliers_dotprod(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                            float* sums);
void strip_outliers_i8mm(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                         float* sums);

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_STRIPS_TARGETS_H_
