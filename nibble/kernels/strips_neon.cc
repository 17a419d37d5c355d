#include <cstring>
#include <type_traits>
#include <utility>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/strips_targets.h"

#if NIBBLE_ARM
#include <arm_neon.h>

#include "nibble/kernels/strips_neon-inl.h"

namespace nibble::kernels {
namespace {

// Without dot products: eight products in 16 bits, the sums of neighbours in 32, and again.
struct Product {
  // 16 bits hold a product, but not the sum of two: both may be 128 * 128.
  static NIBBLE_INLINE int32x4_t add(int32x4_t lanes, uint8x16_t codes, uint8x16_t inputs) {
    const int8x16_t c = vreinterpretq_s8_u8(codes);
    const int8x16_t a = vreinterpretq_s8_u8(inputs);
    const int32x4_t first = vpaddlq_s16(vmull_s8(vget_low_s8(c), vget_low_s8(a)));
    return vaddq_s32(lanes, vpaddq_s32(first, vpaddlq_s16(vmull_high_s8(c, a))));
  }
};

struct Simd : SimdNeon {
  template <Form F>
  using Sum = std::conditional_t<is_below_16(F), SmallSum<Product>, ByteSum<Product>>;
};

}  // namespace
}  // namespace nibble::kernels

#include "nibble/kernels/strips-inl.h"

namespace nibble::kernels {

void strips_product_neon(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                         MatrixView<float> y, uint8_t* scratch) {
  strips(w, x, begin, end, y, scratch);
}

void strip_outliers_neon(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                         float* sums) {
  outliers_product(w, strip, x, outliers, sums);
}

}  // namespace nibble::kernels

#endif  // NIBBLE_ARM
