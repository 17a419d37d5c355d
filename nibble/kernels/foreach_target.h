// Compiles one file once for each instruction set. No include guard: a .cc file does
//
//   #define NIBBLE_TARGET_FILE "nibble/kernels/norm-inl.h"
//   #include "nibble/kernels/foreach_target.h"
//
// after all its other includes, and gets the functions of that file as nibble::kernels::scalar::f,
// nibble::kernels::avx2::f and nibble::kernels::avx512::f (on ARM: nibble::kernels::neon::f), written once on
// the vectors of simd-inl.h. NIBBLE_CHOOSE(f, target) is the one for a CpuTarget.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nibble/base/cpu_target.h"
#include "nibble/base/simd_region.h"

#if NIBBLE_X86
#include <immintrin.h>
#elif NIBBLE_ARM
#include <arm_neon.h>
#endif

#define NIBBLE_NAMESPACE scalar
#define NIBBLE_LANES 1
#include "nibble/kernels/simd-inl.h"
#include NIBBLE_TARGET_FILE
#undef NIBBLE_NAMESPACE
#undef NIBBLE_LANES

#if NIBBLE_X86

NIBBLE_BEGIN_AVX2
#define NIBBLE_NAMESPACE avx2
#define NIBBLE_LANES 8
#include "nibble/kernels/simd-inl.h"
#include NIBBLE_TARGET_FILE
#undef NIBBLE_NAMESPACE
#undef NIBBLE_LANES
NIBBLE_END_TARGET

NIBBLE_BEGIN_AVX512
#define NIBBLE_NAMESPACE avx512
#define NIBBLE_LANES 16
#include "nibble/kernels/simd-inl.h"
#include NIBBLE_TARGET_FILE
#undef NIBBLE_NAMESPACE
#undef NIBBLE_LANES
NIBBLE_END_TARGET

#elif NIBBLE_ARM

#define NIBBLE_NAMESPACE neon
#define NIBBLE_LANES 4
#include "nibble/kernels/simd-inl.h"
#include NIBBLE_TARGET_FILE
#undef NIBBLE_NAMESPACE
#undef NIBBLE_LANES

#endif

#undef NIBBLE_TARGET_FILE

#ifndef NIBBLE_CHOOSE
#if NIBBLE_X86
#define NIBBLE_CHOOSE(function, target)              \
  ((target) >= CpuTarget::kAvx512 ? avx512::function \
   : (target) >= CpuTarget::kAvx2 ? avx2::function   \
                                  : scalar::function)
#elif NIBBLE_ARM
#define NIBBLE_CHOOSE(function, target) ((target) >= CpuTarget::kNeon ? neon::function : scalar::function)
#else
#define NIBBLE_CHOOSE(function, target) (static_cast<void>(target), scalar::function)
#endif
#endif
