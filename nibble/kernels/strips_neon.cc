#include <cstring>
#include <utility>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/strips_targets.h"

#if NIBBLE_ARM
#include <arm_neon.h>

#include "nibble/kernels/strips_neon-inl.h"

namespace nibble::kernels {
namespace {

// Without dot products: eight products in 16 bits, the sums of neighbours, and again, in 32.
struct Simd : SimdNeon {
  // 16 bits hold the sum of two products: 2 * 128 * 127 is 32512.
  static NIBBLE_INLINE int32x4_t add_products(int32x4_t lanes, uint8x16_t codes, uint8x16_t inputs) {
    const int8x16_t c = vreinterpretq_s8_u8(codes);
    const int8x16_t a = vreinterpretq_s8_u8(inputs);
    const int16x8_t first = vmull_s8(vget_low_s8(c), vget_low_s8(a));
    return vpadalq_s16(lanes, vpaddq_s16(first, vmull_high_s8(c, a)));
  }

  // Codes below 16 are signed bytes as they are.
  struct SmallSum {
    Integers lanes;
    NIBBLE_INLINE void clear() { lanes.a = lanes.b = lanes.c = lanes.d = vdupq_n_s32(0); }
    NIBBLE_INLINE void add(const Codes& c, const Codes& inputs) {
      lanes.a = add_products(lanes.a, c.a, inputs.a);
      lanes.b = add_products(lanes.b, c.b, inputs.a);
      lanes.c = add_products(lanes.c, c.c, inputs.a);
      lanes.d = add_products(lanes.d, c.d, inputs.a);
    }
    NIBBLE_INLINE void end_block() {}
    NIBBLE_INLINE Floats floats() const { return to_floats(lanes); }
  };

  template <Form>
  struct Sum {
    SmallSum products;
    int32x4_t inputs;
    NIBBLE_INLINE void clear() {
      products.clear();
      inputs = vdupq_n_s32(0);
    }
    NIBBLE_INLINE void add(const Codes& c, const Codes& a) {
      products.add(less_128(c), a);
      inputs = vpadalq_s16(inputs, vpaddlq_s8(vreinterpretq_s8_u8(a.a)));
    }
    NIBBLE_INLINE void end_block() {}
    NIBBLE_INLINE Floats floats() const { return to_floats(add_128_times(products.lanes, inputs)); }
  };
};

template <>
struct Simd::Sum<Form::kNibbles> : Simd::SmallSum {};
template <>
struct Simd::Sum<Form::kSmallBytes> : Simd::SmallSum {};

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
