#include <cstring>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/dense_targets.h"

#if NIBBLE_ARM
#include <arm_neon.h>

namespace nibble::kernels {
namespace {

struct Simd {
  using Vec = float32x4_t;
  static constexpr size_t kLanes = 4;
  // 24 sums, 4 weights and an input fit 32 registers.
  static constexpr size_t kRows = 4;
  static constexpr size_t kTokens = 6;

  static NIBBLE_INLINE Vec zero() { return vdupq_n_f32(0.f); }
  static NIBBLE_INLINE Vec load(const float* p) { return vld1q_f32(p); }
  static NIBBLE_INLINE Vec load(const Half* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))));
  }
  static NIBBLE_INLINE Vec load(const BFloat* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)), 16));
  }
  template <class E>
  static NIBBLE_INLINE Vec load_first(const E* p, size_t count) {
    E padded[kLanes] = {};
    std::memcpy(padded, p, count * sizeof(E));
    return load(padded);
  }
  static NIBBLE_INLINE Vec fma(Vec a, Vec b, Vec sum) { return vfmaq_f32(sum, a, b); }
  static NIBBLE_INLINE float sum(Vec v) { return vaddvq_f32(v); }
};

}  // namespace
}  // namespace nibble::kernels

#include "nibble/kernels/dense-inl.h"

namespace nibble::kernels {

void dense_product_neon(const DenseRows& w, MatrixView<const float> x, MatrixView<float> y) {
  product(w, x, y);
}

}  // namespace nibble::kernels

#endif  // NIBBLE_ARM
