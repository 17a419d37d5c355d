// What grid.cc does with every weight, compiled once per instruction set.

namespace nibble::kernels::NIBBLE_NAMESPACE {

// v^exponent for v >= 0, within 1e-6 of it. ln v is the exponent of the float times ln 2, plus
// 2 artanh((m - 1) / (m + 1)) for its mantissa m, brought to [0.75, 1.5).
inline F32 power(F32 v, F32 exponent) {
  float lanes[kLanes];
  float exponents[kLanes];
  store(lanes, v);
  for (size_t k = 0; k < kLanes; ++k) {
    uint32_t bits;
    std::memcpy(&bits, lanes + k, sizeof(bits));
    const uint32_t shifted = bits + 0x00400000u;  // carries into the exponent where m >= 1.5
    const uint32_t mantissa = bits - (shifted & 0xFF800000u) + 0x3F800000u;
    exponents[k] = static_cast<float>(static_cast<int32_t>(shifted >> 23) - 127);
    std::memcpy(lanes + k, &mantissa, sizeof(mantissa));
  }
  const F32 m = load(lanes);
  const F32 t = div(sub(m, set1(1.f)), add(m, set1(1.f)));
  const F32 t2 = mul(t, t);
  F32 p = set1(2.f / 9.f);
  p = fmadd(p, t2, set1(2.f / 7.f));
  p = fmadd(p, t2, set1(2.f / 5.f));
  p = fmadd(p, t2, set1(2.f / 3.f));
  p = fmadd(p, t2, set1(2.f));
  const F32 log = fmadd(load(exponents), set1(0.693147181f), mul(p, t));
  return exp(mul(exponent, log));
}

// Sum of |scale * (code - zero) - w|^exponent.
inline float rounding_error(const float* weights, size_t count, float scale, float zero, float max_code,
                            float exponent) {
  F32 sum = set1(0.f);
  for (size_t i = 0; i < count; i += kLanes) {
    const F32 w = load_n(weights + i, count - i);  // lanes behind the end: zeros, which are exact
    const F32 code = max(min(add(round(div(w, set1(scale))), set1(zero)), set1(max_code)), set1(0.f));
    const F32 off = sub(mul(set1(scale), sub(code, set1(zero))), w);
    const F32 magnitude = max(off, sub(set1(0.f), off));
    sum = add(sum, exponent == 2.f ? mul(off, off) : power(magnitude, set1(exponent)));
  }
  return reduce_add(sum);
}

// lo and hi: the smallest and the largest of the weights and 0; NaN counts as nothing.
inline void find_range(const float* weights, size_t count, float* lo, float* hi) {
  F32 smallest = set1(0.f);
  F32 largest = set1(0.f);
  for (size_t i = 0; i < count; i += kLanes) {
    const F32 w = load_n(weights + i, count - i);
    smallest = min(w, smallest);
    largest = max(w, largest);
  }
  *lo = -reduce_max(sub(set1(0.f), smallest));
  *hi = reduce_max(largest);
}

// Writes the first n lanes, integers from 0 to 255, as bytes.
inline void store_codes(uint8_t* codes, F32 values, size_t n) {
#if NIBBLE_LANES == 16
  _mm512_mask_cvtusepi32_storeu_epi8(codes, lane_mask(n), _mm512_cvtps_epi32(values));
#elif NIBBLE_LANES == 8
  const __m256i integers = _mm256_cvtps_epi32(values);
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(integers), _mm256_extracti128_si256(integers, 1));
  const int64_t bytes = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
  std::memcpy(codes, &bytes, n < kLanes ? n : kLanes);
#elif NIBBLE_LANES == 4
  const uint16x4_t shorts = vqmovun_s32(vcvtnq_s32_f32(values));
  const uint8x8_t bytes = vqmovn_u16(vcombine_u16(shorts, shorts));
  std::memcpy(codes, &bytes, n < kLanes ? n : kLanes);
#else
  if (n > 0) *codes = static_cast<uint8_t>(static_cast<int32_t>(values));
#endif
}

// As nearest_code() of finite weights.
inline void nearest_codes(const float* weights, size_t count, float scale, float zero, float max_code,
                          uint8_t* codes) {
  for (size_t i = 0; i < count; i += kLanes) {
    const F32 w = load_n(weights + i, count - i);
    const F32 code = max(min(add(round(div(w, set1(scale))), set1(zero)), set1(max_code)), set1(0.f));
    store_codes(codes + i, code, count - i);
  }
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
