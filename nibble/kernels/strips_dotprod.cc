#include <cstring>
#include <type_traits>
#include <utility>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/strips_targets.h"

#if NIBBLE_ARM_DOT
#include <arm_neon.h>

NIBBLE_BEGIN_DOTPROD

#include "nibble/kernels/strips_neon-inl.h"

namespace nibble::kernels {
namespace {

struct Product {
  static NIBBLE_INLINE int32x4_t add(int32x4_t lanes, uint8x16_t codes, uint8x16_t inputs) {
    return vdotq_s32(lanes, vreinterpretq_s8_u8(codes), vreinterpretq_s8_u8(inputs));
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

void strips_product_dotprod(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                            MatrixView<float> y, uint8_t* scratch) {
  strips(w, x, begin, end, y, scratch);
}

void strip_outliers_dotprod(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                            float* sums) {
  outliers_product(w, strip, x, outliers, sums);
}

}  // namespace nibble::kernels

NIBBLE_END_TARGET

#endif  // NIBBLE_ARM_DOT
