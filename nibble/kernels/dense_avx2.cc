#include <cstring>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/dense_targets.h"

#if NIBBLE_X86
#include <immintrin.h>

NIBBLE_BEGIN_AVX2

namespace nibble::kernels {
namespace {

struct Simd {
  using Vec = __m256;
  static constexpr size_t kLanes = 8;
  // 8 sums, 4 weights and an input fit 16 registers; 8 chains cover the latency of the FMA.
  static constexpr size_t kRows = 4;
  static constexpr size_t kTokens = 2;

  static NIBBLE_INLINE Vec zero() { return _mm256_setzero_ps(); }
  static NIBBLE_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static NIBBLE_INLINE Vec load(const Half* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static NIBBLE_INLINE Vec load(const BFloat* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  template <class E>
  static NIBBLE_INLINE Vec load_first(const E* p, size_t count) {
    E padded[kLanes] = {};
    std::memcpy(padded, p, count * sizeof(E));
    return load(padded);
  }
  static NIBBLE_INLINE Vec fma(Vec a, Vec b, Vec sum) { return _mm256_fmadd_ps(a, b, sum); }
  static NIBBLE_INLINE float sum(Vec v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
};

}  // namespace
}  // namespace nibble::kernels

#include "nibble/kernels/dense-inl.h"

namespace nibble::kernels {

void dense_product_avx2(const DenseRows& w, MatrixView<const float> x, MatrixView<float> y) {
  product(w, x, y);
}

}  // namespace nibble::kernels

NIBBLE_END_TARGET

#endif  // NIBBLE_X86
