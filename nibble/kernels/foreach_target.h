// Compiles one file once for each instruction set. No include guard: a .cc file does
//
//   #define NIBBLE_TARGET_FILE "nibble/kernels/norm-inl.h"
//   #include "nibble/kernels/foreach_target.h"
//
// after all its other includes, and gets the functions of that file as nibble::kernels::scalar::f,
// nibble::kernels::avx2::f and nibble::kernels::avx512::f, written once on the vectors of simd-inl.h.
// NIBBLE_CHOOSE(f, target) is the one for a CpuTarget.
//
// Function attributes choose the instruction set, not compiler flags for the file: with flags, an
// inline function of the standard library might be emitted with AVX-512 and be picked by the linker
// for everybody.

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's avx512 headers make an undefined register by reading an uninitialised variable, and then
// warn of it wherever they are inlined (GCC bug 105593, mended in 13).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nibble/kernels/cpu_target.h"

#define NIBBLE_NAMESPACE scalar
#define NIBBLE_LANES 1
#include "nibble/kernels/simd-inl.h"
#include NIBBLE_TARGET_FILE
#undef NIBBLE_NAMESPACE
#undef NIBBLE_LANES

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define NIBBLE_NAMESPACE avx2
#define NIBBLE_LANES 8
#include "nibble/kernels/simd-inl.h"
#include NIBBLE_TARGET_FILE
#undef NIBBLE_NAMESPACE
#undef NIBBLE_LANES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512cd,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")
#endif
#define NIBBLE_NAMESPACE avx512
#define NIBBLE_LANES 16
#include "nibble/kernels/simd-inl.h"
#include NIBBLE_TARGET_FILE
#undef NIBBLE_NAMESPACE
#undef NIBBLE_LANES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#undef NIBBLE_TARGET_FILE

#ifndef NIBBLE_CHOOSE
#define NIBBLE_CHOOSE(function, target)                \
  ((target) == CpuTarget::kAvx512 ? avx512::function   \
   : (target) == CpuTarget::kAvx2 ? avx2::function     \
                                  : scalar::function)
#endif
