#ifndef NIBBLE_BASE_SIMD_REGION_H_
#define NIBBLE_BASE_SIMD_REGION_H_

// Code for one instruction set inside a program that is built for any x86-64, or any 64-bit ARM:
//
//   #include ...            // everything, before the region
//   NIBBLE_BEGIN_AVX512
//   namespace nibble::kernels { namespace { ... } }
//   NIBBLE_END_TARGET
//
// Attributes and not -m flags per file: with flags, an inline function of the standard library can
// be emitted with AVX-512 and picked by the linker for everybody. Lambdas do not inherit the
// attribute, so there are none inside a region; templates do.

#if defined(__x86_64__)
#define NIBBLE_X86 1
#else
#define NIBBLE_X86 0
#endif

#if defined(__aarch64__)
#define NIBBLE_ARM 1
#else
#define NIBBLE_ARM 0
#endif

// Whether the compiler has regions for the integer dot products of ARM: clang before 16 has none.
#if NIBBLE_ARM && (!defined(__clang__) || __clang_major__ >= 16)
#define NIBBLE_ARM_DOT 1
#else
#define NIBBLE_ARM_DOT 0
#endif

#define NIBBLE_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define NIBBLE_BEGIN_AVX2 \
  NIBBLE_PRAGMA(clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function))
#define NIBBLE_BEGIN_AVX_VNNI \
  NIBBLE_PRAGMA(clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function))
#define NIBBLE_BEGIN_AVX512                                                                           \
  NIBBLE_PRAGMA(clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512cd," \
                                                           "avx512dq,avx512vl,avx512vnni"))),         \
                                     apply_to = function))
#define NIBBLE_BEGIN_AVX512_VBMI                                                         \
  NIBBLE_PRAGMA(clang attribute push(                                                    \
      __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512cd,avx512dq,avx512vl," \
                            "avx512vnni,avx512vbmi"))),                                  \
      apply_to = function))
#define NIBBLE_BEGIN_DOTPROD \
  NIBBLE_PRAGMA(clang attribute push(__attribute__((target("dotprod"))), apply_to = function))
#define NIBBLE_BEGIN_I8MM \
  NIBBLE_PRAGMA(clang attribute push(__attribute__((target("dotprod,i8mm"))), apply_to = function))
#define NIBBLE_END_TARGET NIBBLE_PRAGMA(clang attribute pop)
#define NIBBLE_UNROLL NIBBLE_PRAGMA(unroll)
#else
// The ignored warnings: gcc 12 takes the deliberately undefined operands in its own AVX-512 header
// for mistakes (its bug 105593, mended in 13).
#define NIBBLE_BEGIN_REGION                                     \
  NIBBLE_PRAGMA(GCC diagnostic push)                            \
  NIBBLE_PRAGMA(GCC diagnostic ignored "-Wuninitialized")       \
  NIBBLE_PRAGMA(GCC diagnostic ignored "-Wmaybe-uninitialized") \
  NIBBLE_PRAGMA(GCC push_options)
#define NIBBLE_BEGIN_AVX2 NIBBLE_BEGIN_REGION NIBBLE_PRAGMA(GCC target("avx2,fma,f16c"))
#define NIBBLE_BEGIN_AVX_VNNI NIBBLE_BEGIN_REGION NIBBLE_PRAGMA(GCC target("avx2,fma,f16c,avxvnni"))
#define NIBBLE_BEGIN_AVX512 \
  NIBBLE_BEGIN_REGION       \
  NIBBLE_PRAGMA(GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni"))
#define NIBBLE_BEGIN_AVX512_VBMI                                                         \
  NIBBLE_BEGIN_REGION                                                                    \
  NIBBLE_PRAGMA(                                                                         \
      GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni," \
                 "avx512vbmi"))
#define NIBBLE_BEGIN_DOTPROD NIBBLE_BEGIN_REGION NIBBLE_PRAGMA(GCC target("arch=armv8.2-a+dotprod"))
#define NIBBLE_BEGIN_I8MM NIBBLE_BEGIN_REGION NIBBLE_PRAGMA(GCC target("arch=armv8.2-a+dotprod+i8mm"))
#define NIBBLE_END_TARGET NIBBLE_PRAGMA(GCC pop_options) NIBBLE_PRAGMA(GCC diagnostic pop)
#define NIBBLE_UNROLL NIBBLE_PRAGMA(GCC unroll 16)
#endif

#define NIBBLE_INLINE inline __attribute__((always_inline))

#endif  // NIBBLE_BASE_SIMD_REGION_H_
