#include "nibble/base/simd_region.h"
#include "nibble/kernels/probe.h"
#include "nibble/kernels/probe_targets.h"

#if NIBBLE_X86
#include <immintrin.h>

NIBBLE_BEGIN_AVX512

namespace nibble::kernels {
namespace {

NIBBLE_INLINE __m512i load(const std::byte* p) {
  return _mm512_load_si512(reinterpret_cast<const __m512i*>(p));
}

// The pieces at one pace, kProbeStep bytes of each in turn; prefetched by their own distance, since the
// hardware stops at the end of a page.
template <size_t kStreams>
uint64_t read_pieces(const std::byte* data, size_t stream_bytes) {
  constexpr size_t kAhead = 4096;
  __m512i sums[4] = {};
  for (size_t i = 0; i < stream_bytes; i += kProbeStep) {
    NIBBLE_UNROLL
    for (size_t s = 0; s < kStreams; ++s) {
      const std::byte* const p = data + s * stream_bytes + i;
      NIBBLE_UNROLL
      for (size_t k = 0; k < kProbeStep; k += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(p) + k + kAhead, _MM_HINT_T0);
      }
      NIBBLE_UNROLL
      for (size_t k = 0; k < kProbeStep; k += 64) {
        sums[k / 64 % 4] = _mm512_xor_si512(sums[k / 64 % 4], load(p + k));
      }
    }
  }
  alignas(64) uint64_t words[64 / 8];
  const __m512i all =
      _mm512_xor_si512(_mm512_xor_si512(sums[0], sums[1]), _mm512_xor_si512(sums[2], sums[3]));
  _mm512_store_si512(reinterpret_cast<__m512i*>(words), all);
  uint64_t sum = 0;
  for (const uint64_t word : words) sum ^= word;
  return sum;
}

}  // namespace

uint64_t read_streams_avx512(const std::byte* data, size_t stream_bytes, size_t streams) {
  if (streams >= 8) return read_pieces<8>(data, stream_bytes);
  if (streams >= 4) return read_pieces<4>(data, stream_bytes);
  if (streams >= 2) return read_pieces<2>(data, stream_bytes);
  return read_pieces<1>(data, stream_bytes);
}

float multiply_add_f32_avx512(size_t rounds) {
  __m512 sums[kProbeSums] = {};
  const __m512 factor = _mm512_set1_ps(0.5f);
  for (size_t i = 0; i < rounds; ++i) {
    NIBBLE_UNROLL
    for (size_t s = 0; s < kProbeSums; ++s) sums[s] = _mm512_fmadd_ps(sums[s], factor, factor);
  }
  __m512 all = _mm512_setzero_ps();
  for (size_t s = 0; s < kProbeSums; ++s) all = _mm512_add_ps(all, sums[s]);
  return all[0];
}

int32_t multiply_add_int8_avx512(size_t rounds) {
  __m512i sums[kProbeSums] = {};
  const __m512i factor = _mm512_set1_epi8(1);
  for (size_t i = 0; i < rounds; ++i) {
    NIBBLE_UNROLL
    for (size_t s = 0; s < kProbeSums; ++s) sums[s] = _mm512_dpbusd_epi32(sums[s], factor, factor);
  }
  __m512i all = _mm512_setzero_si512();
  for (size_t s = 0; s < kProbeSums; ++s) all = _mm512_add_epi32(all, sums[s]);
  return _mm_cvtsi128_si32(_mm512_castsi512_si128(all));
}

}  // namespace nibble::kernels

NIBBLE_END_TARGET

#endif  // NIBBLE_X86
