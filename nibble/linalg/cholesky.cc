#include "nibble/linalg/cholesky.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "nibble/linalg/gemm.h"

namespace nibble::linalg {
namespace {

// Everything here halves the matrix until a triangle has at most kLeaf rows, so that nearly all the
// work is products of large matrices.
constexpr size_t kLeaf = 64;

// Rows of the first half: a multiple of kLeaf, so that all leaves but the last are full.
size_t first_half(size_t n) { return (n / 2 + kLeaf - 1) / kLeaf * kLeaf; }

MatrixView<double> block(MatrixView<double> m, size_t row, size_t rows, size_t col, size_t cols) {
  return m.rows(row, rows).cols(col, cols);
}
MatrixView<const double> block(MatrixView<const double> m, size_t row, size_t rows, size_t col, size_t cols) {
  return m.rows(row, rows).cols(col, cols);
}

bool usable_pivot(double pivot) { return pivot > 0 && std::isfinite(pivot); }

std::optional<size_t> cholesky_lower_leaf(MatrixView<double> a) {
  for (size_t j = 0; j < a.rows(); ++j) {
    const double* const top = a.row(j);
    double pivot = top[j];
    for (size_t k = 0; k < j; ++k) pivot -= top[k] * top[k];
    if (!usable_pivot(pivot)) return j;
    const double diagonal = std::sqrt(pivot);
    a.row(j)[j] = diagonal;
    for (size_t i = j + 1; i < a.rows(); ++i) {
      double* const row = a.row(i);
      double sum = row[j];
      for (size_t k = 0; k < j; ++k) sum -= row[k] * top[k];
      row[j] = sum / diagonal;
    }
  }
  return std::nullopt;
}

std::optional<size_t> cholesky_upper_leaf(MatrixView<double> a) {
  const size_t n = a.rows();
  for (size_t j = n; j-- > 0;) {
    const double* const bottom = a.row(j);
    double pivot = bottom[j];
    for (size_t k = j + 1; k < n; ++k) pivot -= bottom[k] * bottom[k];
    if (!usable_pivot(pivot)) return j;
    const double diagonal = std::sqrt(pivot);
    a.row(j)[j] = diagonal;
    for (size_t i = 0; i < j; ++i) {
      double* const row = a.row(i);
      double sum = row[j];
      for (size_t k = j + 1; k < n; ++k) sum -= row[k] * bottom[k];
      row[j] = sum / diagonal;
    }
  }
  return std::nullopt;
}

// In place, row by row from the last: row i of the inverse is made of the rows below it.
void invert_upper_leaf(MatrixView<double> r) {
  const size_t n = r.rows();
  std::array<double, kLeaf> sums;
  for (size_t i = n; i-- > 0;) {
    double* const row = r.row(i);
    const double inverse = 1 / row[i];
    std::fill(sums.begin(), sums.end(), 0.0);
    for (size_t k = i + 1; k < n; ++k) {
      const double* const below = r.row(k);
      for (size_t j = k; j < n; ++j) sums[j] += row[k] * below[j];
    }
    row[i] = inverse;
    for (size_t j = i + 1; j < n; ++j) row[j] = -inverse * sums[j];
  }
}

// The triangular matrix T of x T⁻¹: an upper triangle as it is or transposed, or the transpose of a
// lower one.
enum class Triangle { kUpper, kUpperTransposed, kLowerTransposed };

// x := x T⁻¹ by way of the inverse of the small T.
void solve_leaf(MatrixView<const double> t, Triangle triangle, MatrixView<double> x, ThreadPool& pool) {
  const size_t n = t.rows();
  std::array<double, kLeaf* kLeaf> inverse_data = {};
  const MatrixView<double> inverse(inverse_data.data(), n, n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) {
      inverse.row(i)[j] = triangle == Triangle::kLowerTransposed ? t.row(j)[i] : t.row(i)[j];
    }
  }
  invert_upper_leaf(inverse);

  std::vector<double> copy_data(x.rows() * n);
  const MatrixView<double> copy(copy_data.data(), x.rows(), n);
  pool.parallel_for(x.rows(), 64, [&](size_t begin, size_t end, size_t) {
    for (size_t i = begin; i < end; ++i) std::copy_n(x.row(i), n, copy.row(i));
  });
  gemm({copy}, {inverse, triangle == Triangle::kUpperTransposed}, x, {}, pool);
}

// x := x T⁻¹
void solve(MatrixView<const double> t, Triangle triangle, MatrixView<double> x, ThreadPool& pool) {
  const size_t n = t.rows();
  if (n <= kLeaf) return solve_leaf(t, triangle, x, pool);
  const size_t half = first_half(n);
  const auto t11 = block(t, 0, half, 0, half);
  const auto t22 = block(t, half, n - half, half, n - half);
  const auto x1 = x.cols(0, half);
  const auto x2 = x.cols(half, n - half);
  constexpr GemmOptions kSubtract = {.accumulate = true, .negate = true};
  switch (triangle) {
    case Triangle::kUpper:
      solve(t11, triangle, x1, pool);
      gemm({x1}, {block(t, 0, half, half, n - half)}, x2, kSubtract, pool);
      return solve(t22, triangle, x2, pool);
    case Triangle::kLowerTransposed:
      solve(t11, triangle, x1, pool);
      gemm({x1}, {block(t, half, n - half, 0, half), true}, x2, kSubtract, pool);
      return solve(t22, triangle, x2, pool);
    case Triangle::kUpperTransposed:
      solve(t22, triangle, x2, pool);
      gemm({x2}, {block(t, 0, half, half, n - half), true}, x1, kSubtract, pool);
      return solve(t11, triangle, x1, pool);
  }
}

constexpr size_t kStrip = 256;

// A square block on the diagonal, with zeros below it: what is stored there is not ours to read.
MatrixView<const double> upper_part(MatrixView<const double> r, size_t begin, size_t n,
                                    std::vector<double>& data) {
  data.assign(n * n, 0.0);
  for (size_t i = 0; i < n; ++i)
    std::copy(r.row(begin + i) + begin + i, r.row(begin + i) + begin + n, &data[i * n + i]);
  return {data.data(), n, n};
}

// top := -inverse11 top inverse22, the corner of an inverse. Rows of the result need only the rows of
// `top` from theirs on, so a strip at a time can be written over them.
void multiply_by_triangles(MatrixView<const double> inverse11, MatrixView<const double> inverse22,
                           MatrixView<double> top, ThreadPool& pool) {
  const size_t rows = top.rows();
  const size_t cols = top.cols();
  std::vector<double> strip_data(std::min(kStrip, rows) * cols);
  std::vector<double> triangle_data;
  for (size_t i = 0; i < rows; i += kStrip) {
    const size_t height = std::min(kStrip, rows - i);
    const size_t below = i + height;
    const MatrixView<double> strip(strip_data.data(), height, cols);
    gemm({upper_part(inverse11, i, height, triangle_data)}, {top.rows(i, height)}, strip, {}, pool);
    gemm({block(inverse11, i, height, below, rows - below)}, {top.rows(below, rows - below)}, strip,
         {.accumulate = true}, pool);
    for (size_t j = 0; j < cols; j += kStrip) {
      const size_t width = std::min(kStrip, cols - j);
      const auto result = block(top, i, height, j, width);
      gemm({strip.cols(0, j)}, {block(inverse22, 0, j, j, width)}, result, {.negate = true}, pool);
      gemm({strip.cols(j, width)}, {upper_part(inverse22, j, width, triangle_data)}, result,
           {.accumulate = true, .negate = true}, pool);
    }
  }
}

}  // namespace

std::optional<size_t> cholesky_lower(MatrixView<double> a, ThreadPool& pool) {
  NIBBLE_CHECK(a.rows() == a.cols());
  const size_t n = a.rows();
  if (n <= kLeaf) return cholesky_lower_leaf(a);
  const size_t half = first_half(n);
  const auto a11 = block(a, 0, half, 0, half);
  const auto a21 = block(a, half, n - half, 0, half);
  const auto a22 = block(a, half, n - half, half, n - half);
  if (const auto failed = cholesky_lower(a11, pool)) return failed;
  solve(a11, Triangle::kLowerTransposed, a21, pool);
  gemm({a21}, {a21, true}, a22, {.accumulate = true, .negate = true, .lower_triangle = true}, pool);
  if (const auto failed = cholesky_lower(a22, pool)) return half + *failed;
  return std::nullopt;
}

std::optional<size_t> cholesky_upper(MatrixView<double> a, ThreadPool& pool) {
  NIBBLE_CHECK(a.rows() == a.cols());
  const size_t n = a.rows();
  if (n <= kLeaf) return cholesky_upper_leaf(a);
  const size_t half = first_half(n);
  const auto a11 = block(a, 0, half, 0, half);
  const auto a12 = block(a, 0, half, half, n - half);
  const auto a22 = block(a, half, n - half, half, n - half);
  if (const auto failed = cholesky_upper(a22, pool)) return half + *failed;
  solve(a22, Triangle::kUpperTransposed, a12, pool);
  gemm({a12}, {a12, true}, a11, {.accumulate = true, .negate = true, .upper_triangle = true}, pool);
  return cholesky_upper(a11, pool);
}

void invert_upper(MatrixView<double> r, ThreadPool& pool) {
  NIBBLE_CHECK(r.rows() == r.cols());
  const size_t n = r.rows();
  if (n <= kLeaf) return invert_upper_leaf(r);
  const size_t half = first_half(n);
  const auto r11 = block(r, 0, half, 0, half);
  const auto r22 = block(r, half, n - half, half, n - half);
  invert_upper(r11, pool);
  invert_upper(r22, pool);
  multiply_by_triangles(r11, r22, block(r, 0, half, half, n - half), pool);
}

void solve_rows(MatrixView<const double> r, MatrixView<double> x, ThreadPool& pool) {
  NIBBLE_CHECK(r.rows() == r.cols() && x.cols() == r.rows());
  solve(r, Triangle::kUpperTransposed, x, pool);
  solve(r, Triangle::kUpper, x, pool);
}

}  // namespace nibble::linalg
