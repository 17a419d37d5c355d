// For strips_amx_test.cc: strips_product_amx() as it is, on emulated tiles.

#include <cstring>
#include <utility>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/amx_tiles.h"
#include "nibble/kernels/strips_targets.h"

#if NIBBLE_X86
#include <immintrin.h>

NIBBLE_BEGIN_AVX512

#include "nibble/kernels/strips_512-inl.h"

#include "nibble/kernels/strips-inl.h"

#include "nibble/kernels/strips_amx-inl.h"
#include "nibble/kernels/strips_wide-inl.h"

namespace nibble::kernels {

void strips_product_emulated_tiles_avx512(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                                          MatrixView<float> y, uint8_t* scratch) {
  wide_product<AmxDots<EmulatedTiles>>(w, x, begin, end, y, scratch);
}

}  // namespace nibble::kernels

NIBBLE_END_TARGET

#endif  // NIBBLE_X86
