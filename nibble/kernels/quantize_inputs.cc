#include "nibble/kernels/quantize_inputs.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "nibble/base/float16.h"
#include "nibble/base/simd_region.h"

#if NIBBLE_X86
#include <immintrin.h>
#elif NIBBLE_ARM
#include <arm_neon.h>
#endif

namespace nibble::kernels {
namespace {

constexpr float kTiny = 1e-30f;  // what a code can be, divided by it, is still finite
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
// Of the root mean square of what is left without the largest inputs.
constexpr double kSpikyRounding = 0.0135;

// The place of input i within its eight where codes are not bytes: even ones first.
constexpr size_t interleaved(size_t i) { return i / 8 * 8 + i % 8 / 2 + i % 2 * 4; }

// Magnitudes compare as their bits do, and a NaN is the largest of all.
uint32_t magnitude_bits(float v) { return std::bit_cast<uint32_t>(v) & 0x7FFFFFFFu; }

// What to multiply by before rounding, and the scale that goes with it.
struct Step {
  float inverse;
  float scale;
};

constexpr float kLargest8 = 127.f;
constexpr float kLargest16 = 127.f * 256.f;  // so that the high byte is within -127 to 127

Step step_of(uint32_t largest_bits, float largest_code = kLargest8) {
  const float absmax = std::bit_cast<float>(largest_bits);
  if (!std::isfinite(absmax)) return {0.f, kNaN};
  if (absmax < kTiny) return {0.f, 0.f};
  // In two roundings, as PyTorch divides a number by a tensor: bitsandbytes' codes depend on it.
  return {1.f / absmax * largest_code, absmax / largest_code};
}

uint32_t largest_bits_scalar(const float* x, size_t count) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, magnitude_bits(x[i]));
  return largest;
}

// Of a span's codes.
struct CodeSums {
  int32_t sum;
  int32_t squares;
};

// Codes of one span. x: [blocks * kBlockInputs].
CodeSums quantize_span_scalar(const float* x, size_t blocks, CodeForm form, int8_t* codes, float* scale) {
  const size_t count = blocks * kBlockInputs;
  const Step step = step_of(largest_bits_scalar(x, count));
  *scale = step.scale;
  CodeSums sums = {0, 0};
  for (size_t i = 0; i < count; ++i) {
    const int32_t code = step.inverse == 0.f ? 0 : static_cast<int32_t>(std::nearbyintf(x[i] * step.inverse));
    codes[form == CodeForm::kBytes ? i : interleaved(i)] = static_cast<int8_t>(code);
    sums.sum += code;
    sums.squares += code * code;
  }
  return sums;
}

// The sum of the codes.
int32_t quantize_span_16_scalar(const float* x, size_t blocks, CodeForm form, int8_t* high, int8_t* low,
                                float* scale) {
  const size_t count = blocks * kBlockInputs;
  const Step step = step_of(largest_bits_scalar(x, count), kLargest16);
  *scale = step.scale;
  int32_t sum = 0;
  for (size_t i = 0; i < count; ++i) {
    const int32_t code = step.inverse == 0.f ? 0 : static_cast<int32_t>(std::nearbyintf(x[i] * step.inverse));
    const size_t place = form == CodeForm::kBytes ? i : interleaved(i);
    high[place] = static_cast<int8_t>((code + 128) >> 8);
    low[place] = static_cast<int8_t>(code - 256 * ((code + 128) >> 8));
    sum += code;
  }
  return sum;
}

void span_residual_scalar(const float* x, size_t blocks, CodeForm form, const int8_t* codes, float scale,
                          float* out) {
  for (size_t i = 0; i < blocks * kBlockInputs; ++i) {
    const float code = codes[form == CodeForm::kBytes ? i : interleaved(i)];
    out[i] = std::fma(-scale, code, x[i]);
  }
}

Int8Row quantize_int8_row_scalar(const float* x, size_t count, float threshold, int8_t* codes,
                                 uint32_t* outliers) {
  uint32_t largest = 0;
  size_t num_outliers = 0;
  for (size_t i = 0; i < count; ++i) {
    const float half = fp16_to_float(float_to_fp16(x[i]));
    if (threshold > 0.f && std::fabs(half) >= threshold) {
      outliers[num_outliers++] = static_cast<uint32_t>(i);
    } else {
      largest = std::max(largest, magnitude_bits(half));
    }
  }
  const Step step = step_of(largest);
  int32_t sum = 0;
  for (size_t i = 0; i < count; ++i) {
    const float half = fp16_to_float(float_to_fp16(x[i]));
    const bool zero = step.inverse == 0.f || (threshold > 0.f && std::fabs(half) >= threshold);
    codes[i] = zero ? int8_t{0} : static_cast<int8_t>(std::nearbyintf(half * step.inverse));
    sum += codes[i];
  }
  return {std::isnan(step.scale) ? kNaN : std::bit_cast<float>(largest), sum, num_outliers};
}

}  // namespace
}  // namespace nibble::kernels

#if NIBBLE_X86
NIBBLE_BEGIN_AVX2

namespace nibble::kernels {
namespace {

NIBBLE_INLINE __m256i magnitudes(__m256 v) {
  return _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7FFFFFFF));
}

NIBBLE_INLINE uint32_t largest_lane(__m256i v) {
  const __m128i four = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  const __m128i two = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4E));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32(two, 0xB1))));
}

// 16 bits each, in the order that packing leaves within 128-bit halves.
struct Words {
  __m256i first, second;
};
NIBBLE_INLINE Words to_words(const __m256 v[4]) {
  return {_mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1])),
          _mm256_packs_epi32(_mm256_cvtps_epi32(v[2]), _mm256_cvtps_epi32(v[3]))};
}
// Words within -128 to 127 as bytes in the order of the floats.
NIBBLE_INLINE __m256i to_bytes(const Words& w) {
  // Dwords hold inputs 0 8 16 24 4 12 20 28 (times four) after packing.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(w.first, w.second), order);
}
NIBBLE_INLINE __m256i high_byte(__m256i words) {
  return _mm256_srai_epi16(_mm256_add_epi16(words, _mm256_set1_epi16(128)), 8);
}
NIBBLE_INLINE __m256i low_byte(__m256i words) { return _mm256_srai_epi16(_mm256_slli_epi16(words, 8), 8); }

// 32 rounded floats as bytes in order; they are within -127 to 127.
NIBBLE_INLINE __m256i to_bytes(const __m256 v[4]) { return to_bytes(to_words(v)); }

// 1 * code in pairs, pairs in dwords.
NIBBLE_INLINE __m256i sums_of_four(__m256i bytes) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1));
}

// Two squares, at most 2 * 127^2, fit 16 bits.
NIBBLE_INLINE __m256i squares_of_four(__m256i bytes) {
  const __m256i magnitude = _mm256_abs_epi8(bytes);
  return _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, magnitude), _mm256_set1_epi16(1));
}

NIBBLE_INLINE int32_t sum_of_lanes(__m256i v) {
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xB1)));
}

NIBBLE_INLINE uint32_t largest_magnitude_bits(const float* x, size_t count) {
  __m256i largest = _mm256_setzero_si256();
  for (size_t i = 0; i < count; i += 8) {
    largest = _mm256_max_epu32(largest, magnitudes(_mm256_loadu_ps(x + i)));
  }
  return largest_lane(largest);
}

// The order of activations where codes are not bytes.
NIBBLE_INLINE __m256i interleave(__m256i bytes) {
  return _mm256_shuffle_epi8(bytes, _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15,  //
                                                     0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
}

NIBBLE_INLINE void store_in_order(int8_t* out, __m256i bytes, CodeForm form) {
  if (form != CodeForm::kBytes) bytes = interleave(bytes);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), bytes);
}

int32_t quantize_span_16_avx2(const float* x, size_t blocks, CodeForm form, int8_t* high, int8_t* low,
                              float* scale) {
  const size_t count = blocks * kBlockInputs;
  const Step step = step_of(largest_magnitude_bits(x, count), kLargest16);
  *scale = step.scale;
  if (step.inverse == 0.f) {
    std::memset(high, 0, count);
    std::memset(low, 0, count);
    return 0;
  }
  const __m256 inverse = _mm256_set1_ps(step.inverse);
  const __m256i one = _mm256_set1_epi16(1);
  __m256i sums = _mm256_setzero_si256();
  for (size_t b = 0; b < count; b += kBlockInputs) {
    __m256 v[4];
    NIBBLE_UNROLL
    for (size_t i = 0; i < 4; ++i) v[i] = _mm256_mul_ps(_mm256_loadu_ps(x + b + 8 * i), inverse);
    const Words words = to_words(v);
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(words.first, one));
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(words.second, one));
    store_in_order(high + b, to_bytes(Words{high_byte(words.first), high_byte(words.second)}), form);
    store_in_order(low + b, to_bytes(Words{low_byte(words.first), low_byte(words.second)}), form);
  }
  return sum_of_lanes(sums);
}

CodeSums quantize_span_avx2(const float* x, size_t blocks, CodeForm form, int8_t* codes, float* scale) {
  const Step step = step_of(largest_magnitude_bits(x, blocks * kBlockInputs));
  *scale = step.scale;
  if (step.inverse == 0.f) {
    std::memset(codes, 0, blocks * kBlockInputs);
    return {0, 0};
  }
  const __m256 inverse = _mm256_set1_ps(step.inverse);
  __m256i sums = _mm256_setzero_si256();
  __m256i squares = _mm256_setzero_si256();
  for (size_t b = 0; b < blocks; ++b) {
    __m256 v[4];
    NIBBLE_UNROLL
    for (size_t i = 0; i < 4; ++i)
      v[i] = _mm256_mul_ps(_mm256_loadu_ps(x + b * kBlockInputs + 8 * i), inverse);
    const __m256i bytes = to_bytes(v);
    sums = _mm256_add_epi32(sums, sums_of_four(bytes));
    squares = _mm256_add_epi32(squares, squares_of_four(bytes));
    store_in_order(codes + b * kBlockInputs, bytes, form);
  }
  return {sum_of_lanes(sums), sum_of_lanes(squares)};
}

void span_residual_avx2(const float* x, size_t blocks, CodeForm form, const int8_t* codes, float scale,
                        float* out) {
  const __m128i order = form == CodeForm::kBytes
                            ? _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, 0)
                            : _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m256 step = _mm256_set1_ps(scale);
  for (size_t i = 0; i < blocks * kBlockInputs; i += 8) {
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i));
    const __m256 code = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_shuffle_epi8(eight, order)));
    _mm256_storeu_ps(out + i, _mm256_fnmadd_ps(step, code, _mm256_loadu_ps(x + i)));
  }
}

NIBBLE_INLINE __m256 as_half(__m256 v) {
  return _mm256_cvtph_ps(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

// All ones where |half| reaches the threshold. A NaN does not, and poisons the scale instead.
NIBBLE_INLINE __m256 outlier_mask(__m256 half, float threshold) {
  const __m256 magnitude = _mm256_castsi256_ps(magnitudes(half));
  const __m256 reached = _mm256_cmp_ps(magnitude, _mm256_set1_ps(threshold), _CMP_GE_OQ);
  return threshold > 0.f ? reached : _mm256_setzero_ps();
}

Int8Row quantize_int8_row_avx2(const float* x, size_t count, float threshold, int8_t* codes,
                               uint32_t* outliers) {
  const size_t whole = count / kBlockInputs * kBlockInputs;
  __m256i largest_lanes = _mm256_setzero_si256();
  size_t num_outliers = 0;
  for (size_t i = 0; i < whole; i += 8) {
    const __m256 half = as_half(_mm256_loadu_ps(x + i));
    const __m256 outlier = outlier_mask(half, threshold);
    largest_lanes =
        _mm256_max_epu32(largest_lanes, _mm256_andnot_si256(_mm256_castps_si256(outlier), magnitudes(half)));
    for (unsigned mask = static_cast<unsigned>(_mm256_movemask_ps(outlier)); mask != 0; mask &= mask - 1) {
      outliers[num_outliers++] = static_cast<uint32_t>(i) + static_cast<uint32_t>(std::countr_zero(mask));
    }
  }
  // What is left of a block: the same on a padded copy. Zeros are no outliers and not the largest.
  float rest[kBlockInputs] = {};
  std::memcpy(rest, x + whole, (count - whole) * sizeof(float));
  uint32_t largest = largest_lane(largest_lanes);
  for (size_t i = whole; i < count; ++i) {
    const float half = fp16_to_float(float_to_fp16(rest[i - whole]));
    if (threshold > 0.f && std::fabs(half) >= threshold) {
      outliers[num_outliers++] = static_cast<uint32_t>(i);
    } else {
      largest = std::max(largest, magnitude_bits(half));
    }
  }
  const Step step = step_of(largest);
  __m256i sums = _mm256_setzero_si256();
  for (size_t i = 0; i < count; i += kBlockInputs) {
    const float* const block = i < whole ? x + i : rest;
    __m256 v[4];
    NIBBLE_UNROLL
    for (size_t j = 0; j < 4; ++j) {
      const __m256 half = as_half(_mm256_loadu_ps(block + 8 * j));
      const __m256 product = _mm256_mul_ps(half, _mm256_set1_ps(step.inverse));
      v[j] = _mm256_andnot_ps(outlier_mask(half, threshold), product);
    }
    const __m256i bytes = step.inverse == 0.f ? _mm256_setzero_si256() : to_bytes(v);
    sums = _mm256_add_epi32(sums, sums_of_four(bytes));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + i), bytes);
  }
  const float absmax = std::isnan(step.scale) ? kNaN : std::bit_cast<float>(largest);
  return {absmax, sum_of_lanes(sums), num_outliers};
}

}  // namespace
}  // namespace nibble::kernels

NIBBLE_END_TARGET
#endif  // NIBBLE_X86

#if NIBBLE_ARM

namespace nibble::kernels {
namespace {

NIBBLE_INLINE uint32x4_t magnitudes(float32x4_t v) {
  return vandq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(0x7FFFFFFF));
}

// 16 rounded floats, within -127 to 127, as bytes in order.
NIBBLE_INLINE int8x16_t to_bytes(const float32x4_t v[4]) {
  const int16x8_t first = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(v[0])), vmovn_s32(vcvtnq_s32_f32(v[1])));
  const int16x8_t second = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(v[2])), vmovn_s32(vcvtnq_s32_f32(v[3])));
  return vcombine_s8(vmovn_s16(first), vmovn_s16(second));
}

NIBBLE_INLINE int32x4_t add_bytes(int32x4_t sums, int8x16_t bytes) {
  return vpadalq_s16(sums, vpaddlq_s8(bytes));
}

NIBBLE_INLINE uint32_t largest_magnitude_bits(const float* x, size_t count) {
  uint32x4_t largest = vdupq_n_u32(0);
  for (size_t i = 0; i < count; i += 4) largest = vmaxq_u32(largest, magnitudes(vld1q_f32(x + i)));
  return vmaxvq_u32(largest);
}

int32_t quantize_span_16_neon(const float* x, size_t blocks, CodeForm form, int8_t* high, int8_t* low,
                              float* scale) {
  const size_t count = blocks * kBlockInputs;
  const Step step = step_of(largest_magnitude_bits(x, count), kLargest16);
  *scale = step.scale;
  if (step.inverse == 0.f) {
    std::memset(high, 0, count);
    std::memset(low, 0, count);
    return 0;
  }
  constexpr uint8_t kOrder[2][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 2, 4, 6, 1, 3, 5, 7}};
  const uint8x8_t order = vld1_u8(kOrder[form == CodeForm::kBytes ? 0 : 1]);
  int32x4_t sums = vdupq_n_s32(0);
  for (size_t i = 0; i < count; i += 8) {
    const int32x4_t first = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i), step.inverse));
    const int32x4_t second = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4), step.inverse));
    const int16x8_t codes = vcombine_s16(vmovn_s32(first), vmovn_s32(second));
    sums = vpadalq_s16(sums, codes);
    vst1_s8(high + i,
            vtbl1_s8(vshrn_n_s16(vaddq_s16(codes, vdupq_n_s16(128)), 8), vreinterpret_s8_u8(order)));
    vst1_s8(low + i, vtbl1_s8(vmovn_s16(codes), vreinterpret_s8_u8(order)));
  }
  return vaddvq_s32(sums);
}

CodeSums quantize_span_neon(const float* x, size_t blocks, CodeForm form, int8_t* codes, float* scale) {
  const Step step = step_of(largest_magnitude_bits(x, blocks * kBlockInputs));
  *scale = step.scale;
  if (step.inverse == 0.f) {
    std::memset(codes, 0, blocks * kBlockInputs);
    return {0, 0};
  }
  constexpr uint8_t kOrder[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
  const uint8x16_t order = vld1q_u8(kOrder);
  int32x4_t sums = vdupq_n_s32(0);
  int32x4_t squares = vdupq_n_s32(0);
  for (size_t i = 0; i < blocks * kBlockInputs; i += 16) {
    float32x4_t v[4];
    NIBBLE_UNROLL
    for (size_t j = 0; j < 4; ++j) v[j] = vmulq_n_f32(vld1q_f32(x + i + 4 * j), step.inverse);
    int8x16_t bytes = to_bytes(v);
    sums = add_bytes(sums, bytes);
    squares = vpadalq_s16(squares, vmull_s8(vget_low_s8(bytes), vget_low_s8(bytes)));
    squares = vpadalq_s16(squares, vmull_high_s8(bytes, bytes));
    if (form != CodeForm::kBytes) bytes = vqtbl1q_s8(bytes, order);
    vst1q_s8(codes + i, bytes);
  }
  return {vaddvq_s32(sums), vaddvq_s32(squares)};
}

void span_residual_neon(const float* x, size_t blocks, CodeForm form, const int8_t* codes, float scale,
                        float* out) {
  constexpr uint8_t kOrder[2][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 4, 1, 5, 2, 6, 3, 7}};
  const uint8x8_t order = vld1_u8(kOrder[form == CodeForm::kBytes ? 0 : 1]);
  const float32x4_t step = vdupq_n_f32(scale);
  for (size_t i = 0; i < blocks * kBlockInputs; i += 8) {
    const int16x8_t eight = vmovl_s8(vtbl1_s8(vld1_s8(codes + i), vreinterpret_s8_u8(order)));
    const float32x4_t first = vcvtq_f32_s32(vmovl_s16(vget_low_s16(eight)));
    const float32x4_t second = vcvtq_f32_s32(vmovl_high_s16(eight));
    vst1q_f32(out + i, vfmsq_f32(vld1q_f32(x + i), step, first));
    vst1q_f32(out + i + 4, vfmsq_f32(vld1q_f32(x + i + 4), step, second));
  }
}

}  // namespace
}  // namespace nibble::kernels

#endif  // NIBBLE_ARM

namespace nibble::kernels {
namespace {

using QuantizeSpan = CodeSums (*)(const float* x, size_t blocks, CodeForm form, int8_t* codes, float* scale);
using QuantizeSpan16 = int32_t (*)(const float* x, size_t blocks, CodeForm form, int8_t* high, int8_t* low,
                                   float* scale);
using SpanResidual = void (*)(const float* x, size_t blocks, CodeForm form, const int8_t* codes, float scale,
                              float* out);

struct SpanKernels {
  QuantizeSpan quantize;
  QuantizeSpan16 quantize_16;
  SpanResidual residual;
};

SpanKernels span_kernels_for(CpuTarget target) {
#if NIBBLE_X86
  if (target != CpuTarget::kScalar) return {quantize_span_avx2, quantize_span_16_avx2, span_residual_avx2};
#elif NIBBLE_ARM
  if (target != CpuTarget::kScalar) return {quantize_span_neon, quantize_span_16_neon, span_residual_neon};
#endif
  static_cast<void>(target);
  return {quantize_span_scalar, quantize_span_16_scalar, span_residual_scalar};
}

// fn(group, span, first input, blocks) for all spans in order.
template <class Fn>
void for_each_span(const Strips& w, Fn fn) {
  size_t span = 0;
  size_t block = 0;
  for (size_t g = 0; g < w.group_ends.size(); ++g) {
    for (; span < w.group_ends[g]; ++span) {
      fn(g, span, block * kBlockInputs, w.span_ends[span] - block);
      block = w.span_ends[span];
    }
  }
}

}  // namespace

bool quantize_inputs(const float* x, const Strips& w, const QuantizedToken& out, CpuTarget target) {
  const QuantizeSpan quantize_span = span_kernels_for(target).quantize;
  double rounding = 0.0;  // squares, which float could not hold
  double rest = 0.0;
  std::fill_n(out.sums, w.group_ends.size(), 0.f);
  for_each_span(w, [&](size_t group, size_t span, size_t i, size_t blocks) {
    const CodeSums codes = quantize_span(x + i, blocks, w.form, out.codes + i, out.scales + span);
    const float scale = out.scales[span];
    out.sums[group] += scale * static_cast<float>(codes.sum);
    // A rounding error is uniform within a step. The largest code is 127 or -127.
    const double step = double{scale} * scale;
    rounding += step * static_cast<double>(blocks * kBlockInputs) / 12.0;
    rest += step * static_cast<double>(std::max(codes.squares - 127 * 127, 0));
  });
  return rounding > kSpikyRounding * kSpikyRounding * rest;
}

void quantize_inputs_16(const float* x, const Strips& w, const QuantizedToken& out, int8_t* low,
                        CpuTarget target) {
  const QuantizeSpan16 quantize_span = span_kernels_for(target).quantize_16;
  std::fill_n(out.sums, w.group_ends.size(), 0.f);
  for_each_span(w, [&](size_t group, size_t span, size_t i, size_t blocks) {
    const int32_t codes = quantize_span(x + i, blocks, w.form, out.codes + i, low + i, out.scales + span);
    out.sums[group] += out.scales[span] * static_cast<float>(codes);
  });
}

void quantization_residual(const float* x, const Strips& w, const QuantizedToken& codes, float* out,
                           CpuTarget target) {
  const SpanResidual residual = span_kernels_for(target).residual;
  for_each_span(w, [&](size_t, size_t span, size_t i, size_t blocks) {
    residual(x + i, blocks, w.form, codes.codes + i, codes.scales[span], out + i);
  });
}

Int8Row quantize_int8_row(const float* x, size_t count, float threshold, int8_t* codes, uint32_t* outliers,
                          CpuTarget target) {
  std::memset(codes + count / kBlockInputs * kBlockInputs, 0,
              (count + kBlockInputs - 1) / kBlockInputs * kBlockInputs - count / kBlockInputs * kBlockInputs);
#if NIBBLE_X86
  if (target != CpuTarget::kScalar) return quantize_int8_row_avx2(x, count, threshold, codes, outliers);
#endif
  static_cast<void>(target);
  return quantize_int8_row_scalar(x, count, threshold, codes, outliers);
}

}  // namespace nibble::kernels
