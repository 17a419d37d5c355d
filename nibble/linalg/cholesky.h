#ifndef NIBBLE_LINALG_CHOLESKY_H_
#define NIBBLE_LINALG_CHOLESKY_H_

// Factors of symmetric positive definite matrices, in double, blocked on gemm(). The same bits for
// any number of threads.

#include <optional>

#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"

namespace nibble::linalg {

// In place: the lower triangle of a becomes L with a = L Lᵀ; the strict upper triangle is not read and
// not written. Returns the index of the first pivot that is not positive and finite (a is then
// garbage), or nothing.
std::optional<size_t> cholesky_lower(MatrixView<double> a, ThreadPool& pool);

// In place: the upper triangle of a becomes R with a = R Rᵀ ("reversed" Cholesky: the last row first);
// the strict lower triangle is not read and not written. Otherwise as above.
std::optional<size_t> cholesky_upper(MatrixView<double> a, ThreadPool& pool);

// In place: the inverse of an upper triangular matrix (strict lower triangle untouched).
void invert_upper(MatrixView<double> r, ThreadPool& pool);

// x := x (R Rᵀ)⁻¹, row by row: x: [rows, n], r: [n, n] upper triangular.
void solve_rows(MatrixView<const double> r, MatrixView<double> x, ThreadPool& pool);

}  // namespace nibble::linalg

#endif  // NIBBLE_LINALG_CHOLESKY_H_
