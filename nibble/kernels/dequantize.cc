#include "nibble/kernels/dequantize.h"

#include <cmath>

#include "nibble/base/float16.h"
#include "nibble/base/simd_region.h"

#if NIBBLE_X86
#include <immintrin.h>
#endif

namespace nibble::kernels {
namespace {

constexpr float kInverse127 = 1.f / 127.f;

float rounded(float value, DType dtype) {
  if (dtype == DType::kF16) return fp16_to_float(float_to_fp16(value));
  if (dtype == DType::kBF16) return bf16_to_float(float_to_bf16(value));
  return value;
}

// The formulas for a single code: all of it on the scalar target, what is left of a vector elsewhere.
struct Affine {
  float scale;
  float zero;
  DType rounding;
  float operator()(uint8_t code) const {
    return rounded(scale * (static_cast<float>(code) - zero), rounding);
  }
};
struct Offset {
  float scale;
  float offset;
  DType rounding;
  float operator()(uint8_t code) const {
    return rounded(std::fma(static_cast<float>(code), scale, offset), rounding);
  }
};
struct Table {
  const float* table;
  size_t size;
  float absmax;
  float operator()(uint8_t code) const { return table[code] * absmax; }
};
struct RowAbsmax {
  float absmax;
  float operator()(uint8_t code) const {
    return (static_cast<float>(static_cast<int>(code) - 128) * absmax) * kInverse127;
  }
};

template <class Formula>
void dequantize_each(const uint8_t* codes, size_t begin, size_t end, const Formula& formula, float* out) {
  for (size_t i = begin; i < end; ++i) out[i] = formula(codes[i]);
}

void unpack_scalar(const uint8_t* packed, int width, size_t count, uint8_t* codes) {
  const size_t per_byte = static_cast<size_t>(8 / width);
  const unsigned mask = (1u << width) - 1u;
  for (size_t i = 0; i < count; ++i) {
    const unsigned shift = static_cast<unsigned>(i % per_byte) * static_cast<unsigned>(width);
    codes[i] = static_cast<uint8_t>((unsigned{packed[i / per_byte]} >> shift) & mask);
  }
}

}  // namespace
}  // namespace nibble::kernels

#if NIBBLE_X86
NIBBLE_BEGIN_AVX2

namespace nibble::kernels {
namespace {

NIBBLE_INLINE void store_bytes(uint8_t* p, __m256i v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}

void unpack_avx2(const uint8_t* packed, int width, size_t count, uint8_t* codes) {
  // A byte 0xBA widened to 16 bits and joined with itself shifted by 4 is 0x0BAA -> masked 0x0B0A:
  // the low nibble comes first in memory. Likewise four times 2 bits in 32.
  for (size_t i = 0; i < count;) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed));
    packed += kPackedAlign;
    if (width == 4) {
      const __m256i wide = _mm256_cvtepu8_epi16(bytes);
      const __m256i both = _mm256_or_si256(wide, _mm256_slli_epi16(wide, 4));
      store_bytes(codes + i, _mm256_and_si256(both, _mm256_set1_epi16(0x0F0F)));
      i += 32;
    } else if (width == 2) {
      NIBBLE_UNROLL
      for (size_t half = 0; half < 2; ++half) {
        const __m256i wide = _mm256_cvtepu8_epi32(half == 0 ? bytes : _mm_srli_si128(bytes, 8));
        const __m256i pairs = _mm256_or_si256(wide, _mm256_slli_epi32(wide, 6));
        const __m256i all = _mm256_or_si256(pairs, _mm256_slli_epi32(pairs, 12));
        store_bytes(codes + i + 32 * half, _mm256_and_si256(all, _mm256_set1_epi32(0x03030303)));
      }
      i += 64;
    } else {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + i), bytes);
      i += 16;
    }
  }
}

NIBBLE_INLINE __m256i load_codes(const uint8_t* codes) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
}

NIBBLE_INLINE __m256 rounded_vector(__m256 v, DType dtype) {
  if (dtype == DType::kF16) return _mm256_cvtph_ps(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  if (dtype == DType::kBF16) {
    // Half of the discarded part, plus one if the kept part is odd (float16.h); a NaN is kept quiet.
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    const __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    const __m256 quiet = _mm256_or_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x400000)));
    const __m256 kept = _mm256_blendv_ps(_mm256_castsi256_ps(sum), quiet, nan);
    return _mm256_and_ps(kept, _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }
  return v;
}

NIBBLE_INLINE __m256 formula_vector(const Affine& f, __m256i codes) {
  const __m256 steps = _mm256_sub_ps(_mm256_cvtepi32_ps(codes), _mm256_set1_ps(f.zero));
  return rounded_vector(_mm256_mul_ps(_mm256_set1_ps(f.scale), steps), f.rounding);
}
NIBBLE_INLINE __m256 formula_vector(const Offset& f, __m256i codes) {
  const __m256 steps = _mm256_cvtepi32_ps(codes);
  return rounded_vector(_mm256_fmadd_ps(steps, _mm256_set1_ps(f.scale), _mm256_set1_ps(f.offset)),
                        f.rounding);
}
NIBBLE_INLINE __m256 formula_vector(const Table& f, __m256i codes) {
  __m256 values;
  if (f.size == 16) {
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(f.table), codes);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(f.table + 8), codes);
    // Bit 3 of the code, moved to the sign, chooses the half.
    values = _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
  } else {
    values = _mm256_i32gather_ps(f.table, codes, 4);
  }
  return _mm256_mul_ps(values, _mm256_set1_ps(f.absmax));
}
NIBBLE_INLINE __m256 formula_vector(const RowAbsmax& f, __m256i codes) {
  const __m256 centred = _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, _mm256_set1_epi32(128)));
  return _mm256_mul_ps(_mm256_mul_ps(centred, _mm256_set1_ps(f.absmax)), _mm256_set1_ps(kInverse127));
}

template <class Formula>
void dequantize_avx2(const uint8_t* codes, size_t count, const Formula& formula, float* out) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(out + i, formula_vector(formula, load_codes(codes + i)));
  dequantize_each(codes, i, count, formula, out);
}

}  // namespace
}  // namespace nibble::kernels

NIBBLE_END_TARGET
#endif  // NIBBLE_X86

namespace nibble::kernels {
namespace {

template <class Formula>
void dequantize(const uint8_t* codes, size_t count, const Formula& formula, float* out, CpuTarget target) {
#if NIBBLE_X86
  if (target != CpuTarget::kScalar) return dequantize_avx2(codes, count, formula, out);
#endif
  static_cast<void>(target);
  dequantize_each(codes, 0, count, formula, out);
}

}  // namespace

void unpack_codes(const uint8_t* packed, int width, size_t count, uint8_t* codes, CpuTarget target) {
#if NIBBLE_X86
  if (target != CpuTarget::kScalar) return unpack_avx2(packed, width, count, codes);
#endif
  static_cast<void>(target);
  unpack_scalar(packed, width, count, codes);
}

void dequantize_affine(const uint8_t* codes, size_t count, float scale, float zero, DType rounding,
                       float* out, CpuTarget target) {
  dequantize(codes, count, Affine{scale, zero, rounding}, out, target);
}

void dequantize_offset(const uint8_t* codes, size_t count, float scale, float offset, DType rounding,
                       float* out, CpuTarget target) {
  dequantize(codes, count, Offset{scale, offset, rounding}, out, target);
}

void dequantize_table(const uint8_t* codes, size_t count, const float* table, size_t table_size, float absmax,
                      float* out, CpuTarget target) {
  dequantize(codes, count, Table{table, table_size, absmax}, out, target);
}

void dequantize_row_absmax(const uint8_t* codes, size_t count, float absmax, float* out, CpuTarget target) {
  dequantize(codes, count, RowAbsmax{absmax}, out, target);
}

}  // namespace nibble::kernels
