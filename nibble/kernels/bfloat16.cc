#include "nibble/kernels/bfloat16.h"

#include "nibble/base/float16.h"

#define NIBBLE_TARGET_FILE "nibble/kernels/bfloat16-inl.h"
#include "nibble/kernels/foreach_target.h"

namespace nibble::kernels {

void bf16_to_floats(const uint16_t* from, size_t count, float* to, CpuTarget target) {
  NIBBLE_CHOOSE(bf16_to_floats, target)(from, count, to);
}

void floats_to_bf16(const float* from, size_t count, uint16_t* to, CpuTarget target) {
  NIBBLE_CHOOSE(floats_to_bf16, target)(from, count, to);
}

}  // namespace nibble::kernels
