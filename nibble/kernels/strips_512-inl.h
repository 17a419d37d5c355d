// The Simd of strips-inl.h on AVX-512. Inside the region of the including file, which defines
// NIBBLE_STRIPS_VBMI where that has AVX-512 VBMI.

namespace nibble::kernels {
namespace {

struct Simd {
  static constexpr size_t kLanes = 16;
  // 12 dot products, 12 sums, the codes of both strips and activations fit 32 registers; fewer chains of
  // products than 10 would wait for each other.
  static constexpr size_t kStrips = 2;
  static constexpr size_t kStripsOfFewRows = 4;
  static constexpr size_t kRows = 6;
  static constexpr size_t kPackedRows = 12;
  using Codes = __m512i;
  using Integers = __m512i;
  using Floats = __m512;

  static NIBBLE_INLINE Codes load_codes(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static NIBBLE_INLINE void store_codes(uint8_t* p, Codes c) { _mm512_storeu_si512(p, c); }
  static NIBBLE_INLINE Codes load_table(const uint8_t* p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  template <int n>
  static NIBBLE_INLINE Codes shifted(Codes c) {
    if constexpr (n < 0) return _mm512_slli_epi16(c, -n);
    if constexpr (n > 0) return _mm512_srli_epi16(c, n);
    return c;
  }
  static NIBBLE_INLINE Codes join(Codes a, Codes b) {
    return _mm512_ternarylogic_epi32(b, _mm512_set1_epi8(0x33), a, 0xB8);  // mask ? a : b
  }
  template <int kShift, int kMask>
  static NIBBLE_INLINE Codes field(Codes c) {
    return _mm512_and_si512(shifted<kShift>(c), _mm512_set1_epi8(kMask));
  }
  static NIBBLE_INLINE Codes broadcast_four(const int8_t* four) {
    int32_t bits;
    std::memcpy(&bits, four, sizeof(bits));
    return _mm512_set1_epi32(bits);
  }
#ifdef NIBBLE_STRIPS_VBMI
  // vpermb takes six bits of an index, and the table of sixteen is there four times: what stands above a code
  // does not matter, and codes need not be masked. A codebook costs as much as integers then.
  static NIBBLE_INLINE Codes lookup_low(Codes table, Codes c) { return _mm512_permutexvar_epi8(c, table); }
  static NIBBLE_INLINE Codes lookup_high(Codes table, Codes c) {
    return _mm512_permutexvar_epi8(_mm512_srli_epi16(c, 4), table);
  }
#else
  static NIBBLE_INLINE Codes lookup_low(Codes table, Codes c) {
    return _mm512_shuffle_epi8(table, field<0, 0x0F>(c));
  }
  static NIBBLE_INLINE Codes lookup_high(Codes table, Codes c) {
    return _mm512_shuffle_epi8(table, field<4, 0x0F>(c));
  }
#endif

  template <Form>
  struct Sum {
    __m512i lanes;
    NIBBLE_INLINE void clear() { lanes = _mm512_setzero_si512(); }
    NIBBLE_INLINE void add(Codes c, Codes a) { lanes = _mm512_dpbusd_epi32(lanes, c, a); }
    NIBBLE_INLINE void end_block() {}
    NIBBLE_INLINE Integers integers() const { return lanes; }
  };

  static NIBBLE_INLINE Integers high_and_low(Integers high, Integers low) {
    return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
  }
  static NIBBLE_INLINE Floats floats(Integers i) { return _mm512_cvtepi32_ps(i); }
  static NIBBLE_INLINE Floats zero() { return _mm512_setzero_ps(); }
  static NIBBLE_INLINE Floats broadcast(float value) { return _mm512_set1_ps(value); }
  static NIBBLE_INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
  static NIBBLE_INLINE Floats load_half(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static NIBBLE_INLINE Floats load_bytes(const uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static NIBBLE_INLINE Integers load_integers(const int32_t* p) { return _mm512_loadu_si512(p); }
  static NIBBLE_INLINE void store(float* p, Floats f) { _mm512_storeu_ps(p, f); }
  static NIBBLE_INLINE Floats centred(Codes c, uint32_t j) {
    const __m512i byte = _mm512_and_si512(_mm512_srl_epi32(c, _mm_cvtsi32_si128(static_cast<int>(8 * j))),
                                          _mm512_set1_epi32(0xFF));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(byte, _mm512_set1_epi32(128)));
  }
  static NIBBLE_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static NIBBLE_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static NIBBLE_INLINE Floats fma(Floats a, Floats b, Floats sum) { return _mm512_fmadd_ps(a, b, sum); }
  static NIBBLE_INLINE Floats negative_fma(Floats a, Floats b, Floats sum) {
    return _mm512_fnmadd_ps(a, b, sum);
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
