#include <cstring>

#include "nibble/kernels/simd_region.h"
#include "nibble/kernels/strips_targets.h"

#if NIBBLE_X86
#include <immintrin.h>

NIBBLE_BEGIN_AVX2

namespace nibble::kernels {
namespace {

struct Simd {
  static constexpr size_t kLanes = 8;
  // 4 tokens: 12 accumulators, the codes, an input and a mask fit 16 registers.
  static constexpr size_t kTokens = 4;
  using Codes = __m256i;
  using Floats = __m256;

  static NIBBLE_INLINE Codes load_codes(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static NIBBLE_INLINE void store_codes(uint8_t* p, Codes c) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), c);
  }
  static NIBBLE_INLINE Codes load_table(const uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static NIBBLE_INLINE Codes low(Codes c) { return _mm256_and_si256(c, _mm256_set1_epi8(0x0F)); }
  static NIBBLE_INLINE Codes high(Codes c) {
    return _mm256_and_si256(_mm256_srli_epi16(c, 4), _mm256_set1_epi8(0x0F));
  }
  static NIBBLE_INLINE Codes lookup(Codes table, Codes c) { return _mm256_shuffle_epi8(table, c); }

  static NIBBLE_INLINE __m256i broadcast_four(const int8_t* four) {
    int32_t bits;
    std::memcpy(&bits, four, sizeof(bits));
    return _mm256_set1_epi32(bits);
  }
  static NIBBLE_INLINE __m256i add_pairs(__m256i sixteen_bits) {
    return _mm256_madd_epi16(sixteen_bits, _mm256_set1_epi16(1));
  }

  // pmaddubsw adds two products of u8 and s8 in 16 bits and saturates, so operands must be small.
  // Whole bytes: 2 * 127 * 127 and 2 * 128 * 127 fit, 2 * 255 * 127 does not: bit 7 goes apart.
  template <Form F>
  struct Sum {
    __m256i lanes;  // 32 bits
    NIBBLE_INLINE void clear() { lanes = _mm256_setzero_si256(); }
    NIBBLE_INLINE void add(Codes c, const int8_t* four) {
      const __m256i a = broadcast_four(four);
      const __m256i top = _mm256_set1_epi8(static_cast<char>(0x80));
      const __m256i small = _mm256_maddubs_epi16(_mm256_andnot_si256(top, c), a);
      const __m256i large = _mm256_maddubs_epi16(_mm256_and_si256(c, top), a);
      lanes = _mm256_add_epi32(lanes, _mm256_add_epi32(add_pairs(small), add_pairs(large)));
    }
    NIBBLE_INLINE Floats floats() const { return _mm256_cvtepi32_ps(lanes); }
  };
  // Codes below 16: the 8 sums of a block stay below 8 * 2 * 15 * 127 = 30480.
  struct SmallSum {
    __m256i pairs;  // 16 bits
    NIBBLE_INLINE void clear() { pairs = _mm256_setzero_si256(); }
    NIBBLE_INLINE void add(Codes c, const int8_t* four) {
      pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(c, broadcast_four(four)));
    }
    NIBBLE_INLINE Floats floats() const { return _mm256_cvtepi32_ps(add_pairs(pairs)); }
  };

  static NIBBLE_INLINE Floats zero() { return _mm256_setzero_ps(); }
  static NIBBLE_INLINE Floats broadcast(float value) { return _mm256_set1_ps(value); }
  static NIBBLE_INLINE Floats load(const float* p) { return _mm256_loadu_ps(p); }
  static NIBBLE_INLINE Floats load_half(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static NIBBLE_INLINE Floats load_bytes(const uint8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static NIBBLE_INLINE void store(float* p, Floats f) { _mm256_storeu_ps(p, f); }
  static NIBBLE_INLINE Floats centred(Codes c, uint32_t j) {
    const __m256i byte = _mm256_and_si256(_mm256_srl_epi32(c, _mm_cvtsi32_si128(static_cast<int>(8 * j))),
                                          _mm256_set1_epi32(0xFF));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(byte, _mm256_set1_epi32(128)));
  }
  static NIBBLE_INLINE Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static NIBBLE_INLINE Floats fma(Floats a, Floats b, Floats sum) { return _mm256_fmadd_ps(a, b, sum); }
  static NIBBLE_INLINE Floats negative_fma(Floats a, Floats b, Floats sum) {
    return _mm256_fnmadd_ps(a, b, sum);
  }
  static NIBBLE_INLINE void prefetch(const uint8_t* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
  }
};

template <>
struct Simd::Sum<Form::kNibbles> : Simd::SmallSum {};
template <>
struct Simd::Sum<Form::kSmallBytes> : Simd::SmallSum {};

static_assert(kBlockInputs == 32, "SmallSum adds 8 pairs in 16 bits");

}  // namespace
}  // namespace nibble::kernels

#include "nibble/kernels/strips-inl.h"

namespace nibble::kernels {

void strips_product_avx2(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                         MatrixView<float> y, uint8_t* scratch) {
  strips(w, x, begin, end, y, scratch);
}

void strip_outliers_avx2(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                         float* sums) {
  outliers_product(w, strip, x, outliers, sums);
}

}  // namespace nibble::kernels

NIBBLE_END_TARGET

#endif  // NIBBLE_X86
