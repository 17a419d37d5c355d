#include <cstring>
#include <utility>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/strips_targets.h"

#if NIBBLE_X86
#include <immintrin.h>

NIBBLE_BEGIN_AVX_VNNI

#include "nibble/kernels/strips_256-inl.h"

namespace nibble::kernels {
namespace {

struct Simd : Simd256 {
  // 8 sums, the codes of both strips, activations and a mask fit 16 registers.
  static constexpr size_t kStrips = 2;
  static constexpr size_t kStripsOfFewRows = 2;
  static constexpr size_t kRows = 4;
  static constexpr size_t kPackedRows = 4;

  template <Form>
  struct Sum {
    __m256i lanes;
    NIBBLE_INLINE void clear() { lanes = _mm256_setzero_si256(); }
    NIBBLE_INLINE void add(Codes c, Codes a) { lanes = _mm256_dpbusd_avx_epi32(lanes, c, a); }
    NIBBLE_INLINE void end_block() {}
    NIBBLE_INLINE Integers integers() const { return lanes; }
  };
};

}  // namespace
}  // namespace nibble::kernels

#include "nibble/kernels/strips-inl.h"

namespace nibble::kernels {

void strips_product_avx_vnni(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                             MatrixView<float> y, uint8_t* scratch) {
  strips(w, x, begin, end, y, scratch);
}

void strip_outliers_avx_vnni(const Strips& w, size_t strip, const float* x,
                             std::span<const uint32_t> outliers, float* sums) {
  outliers_product(w, strip, x, outliers, sums);
}

}  // namespace nibble::kernels

NIBBLE_END_TARGET

#endif  // NIBBLE_X86
