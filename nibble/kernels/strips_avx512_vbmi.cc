#include <cstring>
#include <utility>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/strips_targets.h"

#if NIBBLE_X86
#include <immintrin.h>

#define NIBBLE_STRIPS_VBMI

NIBBLE_BEGIN_AVX512_VBMI

#include "nibble/kernels/strips_512-inl.h"

#include "nibble/kernels/strips-inl.h"

namespace nibble::kernels {

void strips_product_avx512_vbmi(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                                MatrixView<float> y, uint8_t* scratch) {
  strips(w, x, begin, end, y, scratch);
}

}  // namespace nibble::kernels

NIBBLE_END_TARGET

#endif  // NIBBLE_X86
