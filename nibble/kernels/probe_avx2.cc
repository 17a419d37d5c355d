#include "nibble/base/simd_region.h"
#include "nibble/kernels/probe.h"
#include "nibble/kernels/probe_targets.h"

#if NIBBLE_X86
#include <immintrin.h>

NIBBLE_BEGIN_AVX2

namespace nibble::kernels {
namespace {

NIBBLE_INLINE __m256i load(const std::byte* p) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
}

// The pieces at one pace, kProbeStep bytes of each in turn; prefetched by their own distance, since the
// hardware stops at the end of a page.
template <size_t kStreams>
uint64_t read_pieces(const std::byte* data, size_t stream_bytes) {
  constexpr size_t kAhead = 4096;
  __m256i sums[4] = {};
  for (size_t i = 0; i < stream_bytes; i += kProbeStep) {
    NIBBLE_UNROLL
    for (size_t s = 0; s < kStreams; ++s) {
      const std::byte* const p = data + s * stream_bytes + i;
      NIBBLE_UNROLL
      for (size_t k = 0; k < kProbeStep; k += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(p) + k + kAhead, _MM_HINT_T0);
      }
      NIBBLE_UNROLL
      for (size_t k = 0; k < kProbeStep; k += 32) {
        sums[k / 32 % 4] = _mm256_xor_si256(sums[k / 32 % 4], load(p + k));
      }
    }
  }
  alignas(64) uint64_t words[32 / 8];
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), all);
  uint64_t sum = 0;
  for (const uint64_t word : words) sum ^= word;
  return sum;
}

}  // namespace

uint64_t read_streams_avx2(const std::byte* data, size_t stream_bytes, size_t streams) {
  if (streams >= 8) return read_pieces<8>(data, stream_bytes);
  if (streams >= 4) return read_pieces<4>(data, stream_bytes);
  if (streams >= 2) return read_pieces<2>(data, stream_bytes);
  return read_pieces<1>(data, stream_bytes);
}

float multiply_add_f32_avx2(size_t rounds) {
  __m256 sums[kProbeSums] = {};
  const __m256 factor = _mm256_set1_ps(0.5f);
  for (size_t i = 0; i < rounds; ++i) {
    NIBBLE_UNROLL
    for (size_t s = 0; s < kProbeSums; ++s) sums[s] = _mm256_fmadd_ps(sums[s], factor, factor);
  }
  __m256 all = _mm256_setzero_ps();
  for (size_t s = 0; s < kProbeSums; ++s) all = _mm256_add_ps(all, sums[s]);
  return all[0];
}

// Without VNNI a product of bytes takes three instructions: pairs to 16 bits, pairs to 32, the sum.
int32_t multiply_add_int8_avx2(size_t rounds) {
  __m256i sums[kProbeSums] = {};
  __m256i factor = _mm256_set1_epi8(1);
  const __m256i ones = _mm256_set1_epi16(1);
  for (size_t i = 0; i < rounds; ++i) {
    NIBBLE_UNROLL
    for (size_t s = 0; s < kProbeSums; ++s) {
      asm volatile("" : "+x"(factor));  // or one product would serve all
      const __m256i pairs = _mm256_maddubs_epi16(factor, factor);
      sums[s] = _mm256_add_epi32(sums[s], _mm256_madd_epi16(pairs, ones));
    }
  }
  __m256i all = _mm256_setzero_si256();
  for (size_t s = 0; s < kProbeSums; ++s) all = _mm256_add_epi32(all, sums[s]);
  return _mm_cvtsi128_si32(_mm256_castsi256_si128(all));
}

}  // namespace nibble::kernels

NIBBLE_END_TARGET

#endif  // NIBBLE_X86
