#include "nibble/base/simd_region.h"
#include "nibble/kernels/dense_targets.h"

#if NIBBLE_X86
#include <immintrin.h>

NIBBLE_BEGIN_AVX512

namespace nibble::kernels {
namespace {

struct Simd {
  using Vec = __m512;
  static constexpr size_t kLanes = 16;
  // 24 sums, 4 weights and an input fit 32 registers: 24 FMAs for 10 loads.
  static constexpr size_t kRows = 4;
  static constexpr size_t kTokens = 6;

  static NIBBLE_INLINE __mmask16 first(size_t count) { return static_cast<__mmask16>((1u << count) - 1u); }

  static NIBBLE_INLINE Vec zero() { return _mm512_setzero_ps(); }
  static NIBBLE_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static NIBBLE_INLINE Vec load(const Half* p) { return widen_half(_mm256_loadu_si256(bits_of(p))); }
  static NIBBLE_INLINE Vec load(const BFloat* p) { return widen_bfloat(_mm256_loadu_si256(bits_of(p))); }
  static NIBBLE_INLINE Vec load_first(const float* p, size_t count) {
    return _mm512_maskz_loadu_ps(first(count), p);
  }
  static NIBBLE_INLINE Vec load_first(const Half* p, size_t count) {
    return widen_half(_mm256_maskz_loadu_epi16(first(count), p));
  }
  static NIBBLE_INLINE Vec load_first(const BFloat* p, size_t count) {
    return widen_bfloat(_mm256_maskz_loadu_epi16(first(count), p));
  }
  static NIBBLE_INLINE Vec fma(Vec a, Vec b, Vec sum) { return _mm512_fmadd_ps(a, b, sum); }
  static NIBBLE_INLINE float sum(Vec v) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }

 private:
  static NIBBLE_INLINE const __m256i* bits_of(const void* p) { return static_cast<const __m256i*>(p); }
  static NIBBLE_INLINE Vec widen_half(__m256i bits) { return _mm512_cvtph_ps(bits); }
  static NIBBLE_INLINE Vec widen_bfloat(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
};

}  // namespace
}  // namespace nibble::kernels

#include "nibble/kernels/dense-inl.h"

namespace nibble::kernels {

void dense_product_avx512(const DenseRows& w, MatrixView<const float> x, MatrixView<float> y) {
  product(w, x, y);
}

}  // namespace nibble::kernels

NIBBLE_END_TARGET

#endif  // NIBBLE_X86
