// Elements of the cache (float, uint16_t for half precision, int8_t) to vectors and back, once per
// instruction set; part of attention-inl.h.

namespace nibble::kernels::NIBBLE_NAMESPACE {

#if NIBBLE_LANES == 1

inline F32 load(const uint16_t* p) { return fp16_to_float(*p); }
inline F32 load(const int8_t* p) { return static_cast<float>(*p); }
inline void store_codes(F32 v, uint16_t* to) { *to = float_to_fp16(v); }
inline void store_codes(F32 v, int8_t* to) { *to = static_cast<int8_t>(std::nearbyint(v)); }

#elif NIBBLE_LANES == 4

inline F32 load(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
inline F32 load(const int8_t* p) {
  int32_t four = 0;
  std::memcpy(&four, p, sizeof(four));
  const int16x8_t shorts = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(shorts)));
}
inline void store_codes(F32 v, uint16_t* to) { vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
inline void store_codes(F32 v, int8_t* to) {
  const int16x4_t shorts = vqmovn_s32(vcvtnq_s32_f32(v));
  const int8x8_t bytes = vqmovn_s16(vcombine_s16(shorts, shorts));
  std::memcpy(to, &bytes, 4);
}

#elif NIBBLE_LANES == 8

inline F32 load(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline F32 load(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline void store_codes(F32 v, uint16_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_codes(F32 v, int8_t* to) {
  const __m256i words = _mm256_cvtps_epi32(v);
  const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(shorts, shorts));
}

#else

inline F32 load(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline F32 load(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline void store_codes(F32 v, uint16_t* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_codes(F32 v, int8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
}

#endif

// The first n elements, zeros behind them; nothing beyond them is read.
template <class E>
inline F32 load_n(const E* p, size_t n) {
  if (n >= kLanes) return load(p);
  E part[kLanes] = {};
  std::memcpy(part, p, n * sizeof(E));
  return load(part);
}

// count is a multiple of kAttentionBlock.
template <class E>
inline void widen(const E* from, size_t count, float* to) {
  for (size_t i = 0; i < count; i += kLanes) store(to + i, load(from + i));
}

// x times factor, rounded, to[i * stride].
template <class E>
inline void store_strided(const float* x, size_t count, float factor, E* to, size_t stride) {
  for (size_t i = 0; i < count; i += kLanes) {
    E codes[kLanes];
    const size_t n = count - i < kLanes ? count - i : kLanes;
    store_codes(mul(load_n(x + i, n), set1(factor)), codes);
    if (stride == 1) {
      std::memcpy(to + i, codes, n * sizeof(E));
    } else {
      for (size_t l = 0; l < n; ++l) to[(i + l) * stride] = codes[l];
    }
  }
}

// The scale of int8 codes for x, and NaN where a number is not finite. Below 1e-30, where 127 / absmax
// would overflow, everything is 0.
inline float int8_scale(const float* x, size_t count) {
  F32 largest = set1(0.f);
  F32 zero_or_nan = set1(0.f);
  for (size_t i = 0; i < count; i += kLanes) {
    const F32 v = load_n(x + i, count - i);
    largest = max(largest, max(v, sub(set1(0.f), v)));
    zero_or_nan = fmadd(v, set1(0.f), zero_or_nan);
  }
  const float absmax = reduce_max(largest);
  return (absmax < 1e-30f ? 0.f : absmax / 127.f) + reduce_add(zero_or_nan);
}

inline void store_int8(const float* x, size_t count, size_t stride, int8_t* codes, float* scale) {
  *scale = int8_scale(x, count);
  const bool usable = *scale > 0.f;  // neither 0 nor NaN
  store_strided(x, usable ? count : 0, usable ? 1.f / *scale : 0.f, codes, stride);
  if (usable) return;
  for (size_t i = 0; i < count; ++i) codes[i * stride] = 0;
}

inline void store_token(KvCacheType type, size_t head_dim, size_t value_head_dim, size_t slot,
                        const float* key, const float* value, std::byte* block) {
  const HeadBlockLayout at = head_block_layout(type, head_dim, value_head_dim);
  const size_t first_value = slot * value_head_dim;
  if (type == KvCacheType::kF32) {
    float* const keys = reinterpret_cast<float*>(block) + slot;
    for (size_t d = 0; d < head_dim; ++d) keys[d * kAttentionBlock] = key[d];
    std::memcpy(block + at.values + first_value * sizeof(float), value, value_head_dim * sizeof(float));
  } else if (type == KvCacheType::kF16) {
    store_strided(key, head_dim, 1.f, reinterpret_cast<uint16_t*>(block) + slot, kAttentionBlock);
    store_strided(value, value_head_dim, 1.f, reinterpret_cast<uint16_t*>(block + at.values) + first_value,
                  1);
  } else {
    store_int8(key, head_dim, kAttentionBlock, reinterpret_cast<int8_t*>(block) + slot,
               reinterpret_cast<float*>(block + at.key_scales) + slot);
    store_int8(value, value_head_dim, 1, reinterpret_cast<int8_t*>(block + at.values) + first_value,
               reinterpret_cast<float*>(block + at.value_scales) + slot);
  }
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
