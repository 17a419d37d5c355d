// The vocabulary of the portable kernels: a vector of NIBBLE_LANES floats. Included once per
// instruction set by foreach_target.h, inside the attributes for it.

namespace nibble::kernels::NIBBLE_NAMESPACE {

inline constexpr size_t kLanes = NIBBLE_LANES;

#if NIBBLE_LANES == 1

using F32 = float;

inline F32 load(const float* p) { return *p; }
inline F32 load_n(const float* p, size_t n) { return n > 0 ? *p : 0.f; }  // zero where n is short
inline void store(float* p, F32 v) { *p = v; }
inline void store_n(float* p, F32 v, size_t n) {
  if (n > 0) *p = v;
}
inline F32 set1(float v) { return v; }
inline F32 add(F32 a, F32 b) { return a + b; }
inline F32 sub(F32 a, F32 b) { return a - b; }
inline F32 mul(F32 a, F32 b) { return a * b; }
inline F32 div(F32 a, F32 b) { return a / b; }
inline F32 fmadd(F32 a, F32 b, F32 c) { return a * b + c; }
inline F32 max(F32 a, F32 b) { return a > b ? a : b; }
inline F32 min(F32 a, F32 b) { return a < b ? a : b; }
inline float reduce_add(F32 v) { return v; }
inline float reduce_max(F32 v) { return v; }
inline F32 round(F32 v) { return std::nearbyint(v); }
// v * 2^n for integral n in [-126, 127].
inline F32 scale_by_power(F32 v, F32 n) {
  const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return v * power;
}

#elif NIBBLE_LANES == 4

using F32 = float32x4_t;

inline F32 load(const float* p) { return vld1q_f32(p); }
inline F32 load_n(const float* p, size_t n) {
  if (n >= 4) return vld1q_f32(p);
  float part[4] = {};
  std::memcpy(part, p, n * sizeof(float));
  return vld1q_f32(part);
}
inline void store(float* p, F32 v) { vst1q_f32(p, v); }
inline void store_n(float* p, F32 v, size_t n) {
  if (n >= 4) return vst1q_f32(p, v);
  float part[4];
  vst1q_f32(part, v);
  std::memcpy(p, part, n * sizeof(float));
}
inline F32 set1(float v) { return vdupq_n_f32(v); }
inline F32 add(F32 a, F32 b) { return vaddq_f32(a, b); }
inline F32 sub(F32 a, F32 b) { return vsubq_f32(a, b); }
inline F32 mul(F32 a, F32 b) { return vmulq_f32(a, b); }
inline F32 div(F32 a, F32 b) { return vdivq_f32(a, b); }
inline F32 fmadd(F32 a, F32 b, F32 c) { return vfmaq_f32(c, a, b); }
// Not vmaxq: of a NaN and a number the second counts, as on the other processors.
inline F32 max(F32 a, F32 b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline F32 min(F32 a, F32 b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline float reduce_add(F32 v) { return vaddvq_f32(v); }
inline float reduce_max(F32 v) { return vmaxvq_f32(v); }
inline F32 round(F32 v) { return vrndnq_f32(v); }
inline F32 scale_by_power(F32 v, F32 n) {
  const int32x4_t bits = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
  return vmulq_f32(v, vreinterpretq_f32_s32(bits));
}

#elif NIBBLE_LANES == 8

using F32 = __m256;

// Lanes below n.
inline __m256i lane_mask(size_t n) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lanes);
}

inline F32 load(const float* p) { return _mm256_loadu_ps(p); }
inline F32 load_n(const float* p, size_t n) {
  return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, lane_mask(n));
}
inline void store(float* p, F32 v) { _mm256_storeu_ps(p, v); }
inline void store_n(float* p, F32 v, size_t n) {
  if (n >= 8) {
    _mm256_storeu_ps(p, v);
  } else {
    _mm256_maskstore_ps(p, lane_mask(n), v);
  }
}
inline F32 set1(float v) { return _mm256_set1_ps(v); }
inline F32 add(F32 a, F32 b) { return _mm256_add_ps(a, b); }
inline F32 sub(F32 a, F32 b) { return _mm256_sub_ps(a, b); }
inline F32 mul(F32 a, F32 b) { return _mm256_mul_ps(a, b); }
inline F32 div(F32 a, F32 b) { return _mm256_div_ps(a, b); }
inline F32 fmadd(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
inline F32 max(F32 a, F32 b) { return _mm256_max_ps(a, b); }
inline F32 min(F32 a, F32 b) { return _mm256_min_ps(a, b); }
inline float reduce_max(F32 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}
inline float reduce_add(F32 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline F32 round(F32 v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline F32 scale_by_power(F32 v, F32 n) {
  const __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(v, _mm256_castsi256_ps(bits));
}

#else

using F32 = __m512;

inline __mmask16 lane_mask(size_t n) {
  return n >= 16 ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1u << n) - 1u);
}

inline F32 load(const float* p) { return _mm512_loadu_ps(p); }
inline F32 load_n(const float* p, size_t n) { return _mm512_maskz_loadu_ps(lane_mask(n), p); }
inline void store(float* p, F32 v) { _mm512_storeu_ps(p, v); }
inline void store_n(float* p, F32 v, size_t n) { _mm512_mask_storeu_ps(p, lane_mask(n), v); }
inline F32 set1(float v) { return _mm512_set1_ps(v); }
inline F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
inline F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
inline F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
inline F32 div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
inline F32 fmadd(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
inline F32 max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
inline F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
inline float reduce_add(F32 v) { return _mm512_reduce_add_ps(v); }
inline float reduce_max(F32 v) { return _mm512_reduce_max_ps(v); }
inline F32 round(F32 v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline F32 scale_by_power(F32 v, F32 n) {
  const __m512i bits = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
  return _mm512_mul_ps(v, _mm512_castsi512_ps(bits));
}

#endif

// e^x within 2 ulp. x = n ln 2 + r with |r| <= ln 2 / 2, e^r by its Taylor polynomial of degree 7
// (next term 5e-9), times 2^n. Below -87.3 the result would be subnormal: it becomes 1.2e-38.
inline F32 exp(F32 x) {
  x = min(max(x, set1(-87.33654f)), set1(88.37626f));
  const F32 n = round(mul(x, set1(1.44269504f)));
  // ln 2 in two parts: the first has 9 zero bits at its end, so that n times it is exact.
  F32 r = fmadd(n, set1(-0.693359375f), x);
  r = fmadd(n, set1(2.12194440e-4f), r);
  F32 p = set1(1.f / 5040.f);
  p = fmadd(p, r, set1(1.f / 720.f));
  p = fmadd(p, r, set1(1.f / 120.f));
  p = fmadd(p, r, set1(1.f / 24.f));
  p = fmadd(p, r, set1(1.f / 6.f));
  p = fmadd(p, r, set1(0.5f));
  p = fmadd(p, r, set1(1.f));
  p = fmadd(p, r, set1(1.f));
  return scale_by_power(p, n);
}

// tanh(x) = 1 - 2 / (e^2x + 1).
inline F32 tanh(F32 x) {
  const F32 e = exp(mul(set1(2.f), x));
  return sub(set1(1.f), div(set1(2.f), add(e, set1(1.f))));
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
