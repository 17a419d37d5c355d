#include "nibble/quantizers/lane_kernels.h"

#include <algorithm>

#define NIBBLE_TARGET_FILE "nibble/quantizers/lane_kernels-inl.h"
#include "nibble/kernels/foreach_target.h"

namespace nibble {

LaneKernels lane_kernels(CpuTarget target) {
  switch (target) {
    case CpuTarget::kAvx512:
      return kernels::avx512::lane_kernel_table();
    case CpuTarget::kAvx2:
      return kernels::avx2::lane_kernel_table();
    case CpuTarget::kScalar:
      break;
  }
  return kernels::scalar::lane_kernel_table();
}

}  // namespace nibble
