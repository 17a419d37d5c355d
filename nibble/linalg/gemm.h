#ifndef NIBBLE_LINALG_GEMM_H_
#define NIBBLE_LINALG_GEMM_H_

// Dense matrix products on all threads. The same bits for any number of threads: work is split over
// elements of the result, and each sum runs over the inner dimension in blocks of a fixed size.

#include "nibble/base/cpu_target.h"
#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"

namespace nibble::linalg {

// How float operands are multiplied.
//   kF32    float32 products and sums
//   kInt16  each row of a and each column of b is rounded to 16-bit integers, with one scale, a power of
//           2, for every 768 elements of depth; products and their sums over that depth are exact. An
//           element is off by at most 1/32700 of the norm of its line (over that depth): less than with
//           bfloat16 unless a few elements hold nearly all of the norm. Twice as fast as kF32 with
//           AVX-512 VNNI. One infinite or NaN element makes all results of its line NaN; so may a norm
//           above 1e33.
enum class Arithmetic { kF32, kInt16 };

// The faster one on this CPU.
Arithmetic fastest_arithmetic();

template <class T>
struct Operand {
  MatrixView<const T> matrix;
  bool transposed = false;  // the operand is the transpose of `matrix`
};

struct GemmOptions {
  bool accumulate = false;  // c += a b instead of c = a b
  bool negate = false;      // subtract the product instead of adding it
  // Only elements of c with column <= row are computed; others keep what they hold (symmetric rank-k
  // updates: half the work).
  bool lower_triangle = false;
  bool upper_triangle = false;               // likewise, column >= row; not both
  Arithmetic arithmetic = Arithmetic::kF32;  // of the float version
};

// c = a b. a: [M, K], b: [K, N] (after transposition), c: [M, N]; c may not overlap the operands.
void gemm(const Operand<float>& a, const Operand<float>& b, MatrixView<float> c, const GemmOptions& options,
          ThreadPool& pool, CpuTarget target = cpu_target());
void gemm(const Operand<double>& a, const Operand<double>& b, MatrixView<double> c,
          const GemmOptions& options, ThreadPool& pool, CpuTarget target = cpu_target());

// Copies the lower triangle of a square matrix to the upper one.
void mirror_lower(MatrixView<float> c, ThreadPool& pool);

}  // namespace nibble::linalg

#endif  // NIBBLE_LINALG_GEMM_H_
