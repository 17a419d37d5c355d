// What the Simd of strips-inl.h has in common on AVX2 and on AVX-VNNI: all but the dot products. Inside the
// region of the including file.

namespace nibble::kernels {
namespace {

struct Simd256 {
  static constexpr size_t kLanes = 8;
  using Codes = __m256i;
  using Integers = __m256i;
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
  template <int n>
  static NIBBLE_INLINE Codes shifted(Codes c) {
    if constexpr (n < 0) return _mm256_slli_epi16(c, -n);
    if constexpr (n > 0) return _mm256_srli_epi16(c, n);
    return c;
  }
  static NIBBLE_INLINE Codes join(Codes a, Codes b) {
    const __m256i mask = _mm256_set1_epi8(0x33);
    return _mm256_or_si256(_mm256_and_si256(mask, a), _mm256_andnot_si256(mask, b));
  }
  template <int kShift, int kMask>
  static NIBBLE_INLINE Codes field(Codes c) {
    return _mm256_and_si256(shifted<kShift>(c), _mm256_set1_epi8(kMask));
  }
  static NIBBLE_INLINE Codes lookup_low(Codes table, Codes c) {
    return _mm256_shuffle_epi8(table, field<0, 0x0F>(c));
  }
  static NIBBLE_INLINE Codes lookup_high(Codes table, Codes c) {
    return _mm256_shuffle_epi8(table, field<4, 0x0F>(c));
  }

  static NIBBLE_INLINE Codes broadcast_four(const int8_t* four) {
    int32_t bits;
    std::memcpy(&bits, four, sizeof(bits));
    return _mm256_set1_epi32(bits);
  }
  static NIBBLE_INLINE Integers high_and_low(Integers high, Integers low) {
    return _mm256_add_epi32(_mm256_slli_epi32(high, 8), low);
  }
  static NIBBLE_INLINE Floats floats(Integers i) { return _mm256_cvtepi32_ps(i); }
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
  static NIBBLE_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static NIBBLE_INLINE Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static NIBBLE_INLINE Floats fma(Floats a, Floats b, Floats sum) { return _mm256_fmadd_ps(a, b, sum); }
  static NIBBLE_INLINE Floats negative_fma(Floats a, Floats b, Floats sum) {
    return _mm256_fnmadd_ps(a, b, sum);
  }
  static NIBBLE_INLINE void prefetch(const uint8_t* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
  }
  static NIBBLE_INLINE void prefetch_near(const uint8_t* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
};

}  // namespace
}  // namespace nibble::kernels
