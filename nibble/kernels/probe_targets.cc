#include "nibble/kernels/probe_targets.h"

#include "nibble/base/simd_region.h"
#include "nibble/kernels/probe.h"

#if NIBBLE_X86
#include <immintrin.h>
#elif NIBBLE_ARM
#include <arm_neon.h>
#endif

#if NIBBLE_X86

NIBBLE_BEGIN_AVX2
namespace nibble::kernels {
namespace {

struct Vectors256 {
  using Bytes = __m256i;
  using Floats = __m256;
  template <class V>
  static NIBBLE_INLINE void hide(V& v) {
    asm volatile("" : "+x"(v));
  }
  static NIBBLE_INLINE Bytes load(const std::byte* p) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
  }
  static NIBBLE_INLINE Bytes exclusive_or(Bytes a, Bytes b) { return _mm256_xor_si256(a, b); }
  static NIBBLE_INLINE void words(Bytes v, uint64_t* out) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(out), v);
  }
  static NIBBLE_INLINE Floats set(float x) { return _mm256_set1_ps(x); }
  static NIBBLE_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static NIBBLE_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static NIBBLE_INLINE float first(Floats v) { return _mm256_cvtss_f32(v); }
  static NIBBLE_INLINE Bytes set_bytes(char x) { return _mm256_set1_epi8(x); }
  static NIBBLE_INLINE Bytes add_integers(Bytes a, Bytes b) { return _mm256_add_epi32(a, b); }
  static NIBBLE_INLINE int32_t first_integer(Bytes v) { return _mm_cvtsi128_si32(_mm256_castsi256_si128(v)); }
};

namespace avx2 {

struct Vectors : Vectors256 {
  // Without VNNI a product of bytes takes three instructions: pairs to 16 bits, pairs to 32, the sum.
  static NIBBLE_INLINE Bytes multiply_add_bytes(Bytes sums, Bytes& factor) {
    asm volatile("" : "+x"(factor));  // or one product would serve all
    const __m256i pairs = _mm256_maddubs_epi16(factor, factor);
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};
#include "nibble/kernels/probe-inl.h"

}  // namespace avx2
}  // namespace
}  // namespace nibble::kernels
NIBBLE_END_TARGET

NIBBLE_BEGIN_AVX_VNNI
namespace nibble::kernels {
namespace {
namespace avx_vnni {

struct Vectors : Vectors256 {
  static NIBBLE_INLINE Bytes multiply_add_bytes(Bytes sums, Bytes factor) {
    return _mm256_dpbusd_avx_epi32(sums, factor, factor);
  }
};
#include "nibble/kernels/probe-inl.h"

}  // namespace avx_vnni
}  // namespace
}  // namespace nibble::kernels
NIBBLE_END_TARGET

NIBBLE_BEGIN_AVX512
namespace nibble::kernels {
namespace {
namespace avx512 {

struct Vectors {
  using Bytes = __m512i;
  using Floats = __m512;
  template <class V>
  static NIBBLE_INLINE void hide(V& v) {
    asm volatile("" : "+v"(v));
  }
  static NIBBLE_INLINE Bytes load(const std::byte* p) {
    return _mm512_load_si512(reinterpret_cast<const __m512i*>(p));
  }
  static NIBBLE_INLINE Bytes exclusive_or(Bytes a, Bytes b) { return _mm512_xor_si512(a, b); }
  static NIBBLE_INLINE void words(Bytes v, uint64_t* out) {
    _mm512_store_si512(reinterpret_cast<__m512i*>(out), v);
  }
  static NIBBLE_INLINE Floats set(float x) { return _mm512_set1_ps(x); }
  static NIBBLE_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static NIBBLE_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static NIBBLE_INLINE float first(Floats v) { return _mm512_cvtss_f32(v); }
  static NIBBLE_INLINE Bytes set_bytes(char x) { return _mm512_set1_epi8(x); }
  static NIBBLE_INLINE Bytes add_integers(Bytes a, Bytes b) { return _mm512_add_epi32(a, b); }
  static NIBBLE_INLINE int32_t first_integer(Bytes v) { return _mm_cvtsi128_si32(_mm512_castsi512_si128(v)); }
  static NIBBLE_INLINE Bytes multiply_add_bytes(Bytes sums, Bytes factor) {
    return _mm512_dpbusd_epi32(sums, factor, factor);
  }
};
#include "nibble/kernels/probe-inl.h"

}  // namespace avx512
}  // namespace
}  // namespace nibble::kernels
NIBBLE_END_TARGET

#endif  // NIBBLE_X86

#if NIBBLE_ARM

namespace nibble::kernels {
namespace {

struct VectorsNeon {
  using Bytes = int32x4_t;
  using Floats = float32x4_t;
  template <class V>
  static NIBBLE_INLINE void hide(V& v) {
    asm volatile("" : "+w"(v));
  }
  static NIBBLE_INLINE Bytes load(const std::byte* p) {
    return vld1q_s32(reinterpret_cast<const int32_t*>(p));
  }
  static NIBBLE_INLINE Bytes exclusive_or(Bytes a, Bytes b) { return veorq_s32(a, b); }
  static NIBBLE_INLINE void words(Bytes v, uint64_t* out) { vst1q_u64(out, vreinterpretq_u64_s32(v)); }
  static NIBBLE_INLINE Floats set(float x) { return vdupq_n_f32(x); }
  static NIBBLE_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
  static NIBBLE_INLINE Floats add(Floats a, Floats b) { return vaddq_f32(a, b); }
  static NIBBLE_INLINE float first(Floats v) { return vgetq_lane_f32(v, 0); }
  static NIBBLE_INLINE Bytes set_bytes(int8_t x) { return vreinterpretq_s32_s8(vdupq_n_s8(x)); }
  static NIBBLE_INLINE Bytes add_integers(Bytes a, Bytes b) { return vaddq_s32(a, b); }
  static NIBBLE_INLINE int32_t first_integer(Bytes v) { return vgetq_lane_s32(v, 0); }
};

namespace neon {

struct Vectors : VectorsNeon {
  // As the kernels do it: products to 16 bits, their pairs, and the pairs of those to 32.
  static NIBBLE_INLINE Bytes multiply_add_bytes(Bytes sums, Bytes& factor) {
    asm volatile("" : "+w"(factor));  // or one product would serve all
    const int8x16_t bytes = vreinterpretq_s8_s32(factor);
    const int16x8_t products = vmull_s8(vget_low_s8(bytes), vget_low_s8(bytes));
    return vpadalq_s16(sums, vpaddq_s16(products, vmull_high_s8(bytes, bytes)));
  }
};
#include "nibble/kernels/probe-inl.h"

}  // namespace neon
}  // namespace
}  // namespace nibble::kernels

#endif  // NIBBLE_ARM

#if NIBBLE_ARM_DOT

NIBBLE_BEGIN_DOTPROD
namespace nibble::kernels {
namespace {
namespace dotprod {

struct Vectors : VectorsNeon {
  static NIBBLE_INLINE Bytes multiply_add_bytes(Bytes sums, Bytes factor) {
    const int8x16_t bytes = vreinterpretq_s8_s32(factor);
    return vdotq_s32(sums, bytes, bytes);
  }
};
#include "nibble/kernels/probe-inl.h"

}  // namespace dotprod
}  // namespace
}  // namespace nibble::kernels
NIBBLE_END_TARGET

#endif  // NIBBLE_ARM_DOT

namespace nibble::kernels {

const ProbeLoops* probe_loops(CpuTarget target) {
#if NIBBLE_X86
  if (target >= CpuTarget::kAvx512) return &avx512::kLoops;
  if (target >= CpuTarget::kAvxVnni) return &avx_vnni::kLoops;
  if (target >= CpuTarget::kAvx2) return &avx2::kLoops;
#elif NIBBLE_ARM
#if NIBBLE_ARM_DOT
  if (target >= CpuTarget::kDotprod) return &dotprod::kLoops;
#endif
  if (target >= CpuTarget::kNeon) return &neon::kLoops;
#endif
  static_cast<void>(target);
  return nullptr;
}

}  // namespace nibble::kernels
