#include "nibble/quantizers/lane_kernels.h"

#define NIBBLE_TARGET_FILE "nibble/quantizers/lane_kernels-inl.h"
#include "nibble/kernels/foreach_target.h"

namespace nibble {

LaneKernels lane_kernels(CpuTarget target) {
  using namespace kernels;
  return NIBBLE_CHOOSE(lane_kernel_table, target)();
}

}  // namespace nibble
