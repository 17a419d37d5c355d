#include <cstring>
#include <type_traits>
#include <utility>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/strips_targets.h"

#if NIBBLE_X86
#include <immintrin.h>

NIBBLE_BEGIN_AVX2

#include "nibble/kernels/strips_256-inl.h"

namespace nibble::kernels {
namespace {

struct Simd : Simd256 {
  // Two sums for each of 4 tokens, codes, activations and a mask fit 16 registers.
  static constexpr size_t kStrips = 1;
  static constexpr size_t kStripsOfFewRows = 2;
  static constexpr size_t kRows = 4;
  static constexpr size_t kPackedRows = 4;

  static NIBBLE_INLINE __m256i add_pairs(__m256i sixteen_bits) {
    return _mm256_madd_epi16(sixteen_bits, _mm256_set1_epi16(1));
  }

  // pmaddubsw adds two products of u8 and s8 in 16 bits and saturates, so operands must be small.
  // Whole bytes: 2 * 127 * -128 and 2 * 128 * -128 fit, 2 * 255 * 127 does not: bit 7 goes apart.
  struct ByteSum {
    __m256i lanes;  // 32 bits
    NIBBLE_INLINE void clear() { lanes = _mm256_setzero_si256(); }
    NIBBLE_INLINE void add(Codes c, Codes a) {
      const __m256i top = _mm256_set1_epi8(static_cast<char>(0x80));
      const __m256i small = _mm256_maddubs_epi16(_mm256_andnot_si256(top, c), a);
      const __m256i large = _mm256_maddubs_epi16(_mm256_and_si256(c, top), a);
      lanes = _mm256_add_epi32(lanes, _mm256_add_epi32(add_pairs(small), add_pairs(large)));
    }
    NIBBLE_INLINE void end_block() {}
    NIBBLE_INLINE Integers integers() const { return lanes; }
  };
  // Codes below 16: the 8 sums of a block reach 8 * 2 * 15 * 128 = 30720 at most.
  struct SmallSum {
    __m256i pairs;  // 16 bits, of a block
    __m256i lanes;  // 32 bits
    NIBBLE_INLINE void clear() { pairs = lanes = _mm256_setzero_si256(); }
    NIBBLE_INLINE void add(Codes c, Codes a) { pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(c, a)); }
    NIBBLE_INLINE void end_block() {
      lanes = _mm256_add_epi32(lanes, add_pairs(pairs));
      pairs = _mm256_setzero_si256();
    }
    NIBBLE_INLINE Integers integers() const { return lanes; }
  };
  template <Form F>
  using Sum = std::conditional_t<is_below_16(F), SmallSum, ByteSum>;
};

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
