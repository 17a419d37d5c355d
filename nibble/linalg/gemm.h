#ifndef NIBBLE_LINALG_GEMM_H_
#define NIBBLE_LINALG_GEMM_H_

// Dense matrix products on all threads. The same bits for any number of threads: work is split over
// elements of the result, and each sum runs over the inner dimension in blocks of a fixed size.

#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"
#include "nibble/kernels/cpu_target.h"

namespace nibble::linalg {

// How float operands are multiplied; sums are float32 either way.
//   kF32   float32 products
//   kBf16  operands rounded to bfloat16 first, products exact: twice as fast where the CPU has
//          vdpbf16ps, no faster than kF32 where it has not, and there with sums that differ in their
//          last bits
enum class Arithmetic { kF32, kBf16 };

// kBf16 where this CPU multiplies it in hardware.
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
