#include "nibble/kernels/strips.h"

#include <algorithm>
#include <utility>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/strips_scalar-inl.h"
#include "nibble/kernels/strips_targets.h"

#include "nibble/kernels/strips-inl.h"

namespace nibble::kernels {

void strips_product_scalar(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                           MatrixView<float> y, uint8_t* scratch) {
  strips(w, x, begin, end, y, scratch);
}

void strip_outliers_scalar(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                           float* sums) {
  outliers_product(w, strip, x, outliers, sums);
}

namespace {
// Of AMX: fewer are faster without.
constexpr size_t kRowsForTiles = 16;
}  // namespace

#if NIBBLE_X86
bool has_vbmi() {
  static const bool has = __builtin_cpu_supports("avx512vbmi");
  return has;
}
#endif

void strips_product(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end, MatrixView<float> y,
                    uint8_t* scratch, CpuTarget target) {
#if NIBBLE_X86
  if (target == CpuTarget::kAmx && x.rows >= kRowsForTiles) {
    return strips_product_amx(w, x, begin, end, y, scratch);
  }
  if (target >= CpuTarget::kAvx512) {
    const bool by_table = w.form == CodeForm::kNibbleTable && has_vbmi();
    return (by_table ? strips_product_avx512_vbmi : strips_product_avx512)(w, x, begin, end, y, scratch);
  }
  if (target == CpuTarget::kAvxVnni) return strips_product_avx_vnni(w, x, begin, end, y, scratch);
  if (target == CpuTarget::kAvx2) return strips_product_avx2(w, x, begin, end, y, scratch);
#elif NIBBLE_ARM
#if NIBBLE_ARM_DOT
  if (target == CpuTarget::kI8mm) return strips_product_i8mm(w, x, begin, end, y, scratch);
  if (target == CpuTarget::kDotprod) return strips_product_dotprod(w, x, begin, end, y, scratch);
#endif
  if (target >= CpuTarget::kNeon) return strips_product_neon(w, x, begin, end, y, scratch);
#endif
  static_cast<void>(target);
  strips_product_scalar(w, x, begin, end, y, scratch);
}

void strip_outliers(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                    float* sums, CpuTarget target) {
#if NIBBLE_X86
  if (target >= CpuTarget::kAvx512) return strip_outliers_avx512(w, strip, x, outliers, sums);
  if (target == CpuTarget::kAvxVnni) return strip_outliers_avx_vnni(w, strip, x, outliers, sums);
  if (target == CpuTarget::kAvx2) return strip_outliers_avx2(w, strip, x, outliers, sums);
#elif NIBBLE_ARM
#if NIBBLE_ARM_DOT
  if (target == CpuTarget::kI8mm) return strip_outliers_i8mm(w, strip, x, outliers, sums);
  if (target == CpuTarget::kDotprod) return strip_outliers_dotprod(w, strip, x, outliers, sums);
#endif
  if (target >= CpuTarget::kNeon) return strip_outliers_neon(w, strip, x, outliers, sums);
#endif
  static_cast<void>(target);
  strip_outliers_scalar(w, strip, x, outliers, sums);
}

size_t strips_per_call(const Strips& w, size_t rows, CpuTarget target) {
  if (target == CpuTarget::kAmx && rows >= kRowsForTiles) return wide_strips_at_once(w);
  return std::max<size_t>(4, (size_t{32} << 10) / w.strip_bytes() / 4 * 4);
}

size_t strips_scratch_bytes(const Strips& w, CpuTarget target) {
  size_t most = 2;  // strips that are unpacked at a time
  if (target == CpuTarget::kAmx) most = wide_strips_at_once(w);
  return w.form == CodeForm::kBytes ? kLineBytes : most * w.unpacked_bytes();
}

}  // namespace nibble::kernels
