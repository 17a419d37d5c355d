#include <cstring>
#include <utility>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/strips_targets.h"

#if NIBBLE_ARM_DOT
#include <arm_neon.h>

NIBBLE_BEGIN_DOTPROD

#include "nibble/kernels/strips_neon-inl.h"

namespace nibble::kernels {
namespace {

struct Simd : SimdNeon {
  static NIBBLE_INLINE int32x4_t dot(int32x4_t lanes, uint8x16_t codes, uint8x16_t inputs) {
    return vdotq_s32(lanes, vreinterpretq_s8_u8(codes), vreinterpretq_s8_u8(inputs));
  }

  // Codes below 16 are signed bytes as they are.
  struct SmallSum {
    Integers lanes;
    NIBBLE_INLINE void clear() { lanes.a = lanes.b = lanes.c = lanes.d = vdupq_n_s32(0); }
    NIBBLE_INLINE void add(const Codes& c, const Codes& inputs) {
      lanes.a = dot(lanes.a, c.a, inputs.a);
      lanes.b = dot(lanes.b, c.b, inputs.a);
      lanes.c = dot(lanes.c, c.c, inputs.a);
      lanes.d = dot(lanes.d, c.d, inputs.a);
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
      inputs = dot(inputs, vdupq_n_u8(1), a.a);
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
