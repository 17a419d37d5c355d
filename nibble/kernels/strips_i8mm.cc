#include <cstring>
#include <utility>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/strips_targets.h"

#if NIBBLE_ARM_DOT
#include <arm_neon.h>

NIBBLE_BEGIN_I8MM

#include "nibble/kernels/strips_neon-inl.h"

namespace nibble::kernels {
namespace {

struct Simd : SimdNeon {
  template <Form>
  struct Sum {
    Integers lanes;
    NIBBLE_INLINE void clear() { lanes.a = lanes.b = lanes.c = lanes.d = vdupq_n_s32(0); }
    NIBBLE_INLINE void add(const Codes& c, const Codes& inputs) {
      const int8x16_t x = vreinterpretq_s8_u8(inputs.a);
      lanes.a = vusdotq_s32(lanes.a, c.a, x);
      lanes.b = vusdotq_s32(lanes.b, c.b, x);
      lanes.c = vusdotq_s32(lanes.c, c.c, x);
      lanes.d = vusdotq_s32(lanes.d, c.d, x);
    }
    NIBBLE_INLINE void end_block() {}
    NIBBLE_INLINE Integers integers() const { return lanes; }
  };
};

}  // namespace
}  // namespace nibble::kernels

#include "nibble/kernels/strips-inl.h"

namespace nibble::kernels {

void strips_product_i8mm(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                         MatrixView<float> y, uint8_t* scratch) {
  strips(w, x, begin, end, y, scratch);
}

void strip_outliers_i8mm(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                         float* sums) {
  outliers_product(w, strip, x, outliers, sums);
}

}  // namespace nibble::kernels

NIBBLE_END_TARGET

#endif  // NIBBLE_ARM_DOT
