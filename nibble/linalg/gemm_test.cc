#include "nibble/linalg/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace nibble::linalg {
namespace {

constexpr size_t kRowPadding = 5;

// A matrix whose rows are further apart than they are long.
template <class T>
struct Matrix {
  Matrix(size_t r, size_t c) : rows(r), cols(c), data(r * (c + kRowPadding) + 1) {}
  T& at(size_t i, size_t j) { return data[i * (cols + kRowPadding) + j]; }
  T at(size_t i, size_t j) const { return data[i * (cols + kRowPadding) + j]; }
  MatrixView<T> view() { return {data.data(), rows, cols, cols + kRowPadding}; }
  MatrixView<const T> view() const { return {data.data(), rows, cols, cols + kRowPadding}; }
  size_t rows, cols;
  std::vector<T> data;
};

// Small integers, the space between rows included: sums of their products are exact in any arithmetic,
// so that results can be compared for equality.
template <class T>
Matrix<T> random_integers(size_t rows, size_t cols, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> uniform(-9, 9);
  Matrix<T> m(rows, cols);
  for (T& value : m.data) value = static_cast<T>(uniform(random));
  return m;
}

template <class T>
Matrix<T> random_reals(size_t rows, size_t cols, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Matrix<T> m(rows, cols);
  for (T& value : m.data) value = static_cast<T>(normal(random));
  return m;
}

struct Shape {
  size_t m, n, k;
};

// Smaller than a register block, around one, around a tile, and over several blocks of depth.
constexpr Shape kShapes[] = {{1, 1, 1},     {3, 2, 0},       {4, 8, 3},      {5, 15, 16},   {6, 16, 17},
                             {14, 32, 33},  {15, 33, 191},   {13, 31, 193},  {29, 70, 385}, {113, 40, 64},
                             {40, 300, 50}, {130, 265, 769}, {230, 17, 1541}};

template <class T>
Matrix<T> reference(const Operand<T>& a, const Operand<T>& b, Matrix<T> c, const GemmOptions& options) {
  const size_t depth = a.transposed ? a.matrix.rows() : a.matrix.cols();
  for (size_t i = 0; i < c.rows; ++i) {
    for (size_t j = 0; j < c.cols; ++j) {
      if ((options.lower_triangle && j > i) || (options.upper_triangle && j < i)) continue;
      double sum = 0;
      for (size_t k = 0; k < depth; ++k) {
        const T left = a.transposed ? a.matrix.row(k)[i] : a.matrix.row(i)[k];
        const T right = b.transposed ? b.matrix.row(j)[k] : b.matrix.row(k)[j];
        sum += static_cast<double>(left) * static_cast<double>(right);
      }
      if (options.negate) sum = -sum;
      c.at(i, j) = static_cast<T>(options.accumulate ? static_cast<double>(c.at(i, j)) + sum : sum);
    }
  }
  return c;
}

std::string describe(const Shape& s, bool ta, bool tb, const GemmOptions& o, CpuTarget target) {
  return std::string(cpu_target_name(target)) + " " + std::to_string(s.m) + "x" + std::to_string(s.n) + "x" +
         std::to_string(s.k) + (ta ? " at" : "") + (tb ? " bt" : "") + (o.accumulate ? " accumulate" : "") +
         (o.negate ? " negate" : "") + (o.lower_triangle ? " lower" : "") +
         (o.upper_triangle ? " upper" : "") + (o.arithmetic == Arithmetic::kInt16 ? " int16" : "");
}

// One shape with every transposition, on every instruction set.
template <class T>
void expect_exact(const Shape& s, const GemmOptions& options) {
  ThreadPool pool(2);
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      const Matrix<T> a = ta ? random_integers<T>(s.k, s.m, 1) : random_integers<T>(s.m, s.k, 1);
      const Matrix<T> b = tb ? random_integers<T>(s.n, s.k, 2) : random_integers<T>(s.k, s.n, 2);
      const Matrix<T> before = random_integers<T>(s.m, s.n, 3);
      const Matrix<T> expected = reference<T>({a.view(), ta}, {b.view(), tb}, before, options);
      for (const CpuTarget target : supported_cpu_targets()) {
        Matrix<T> c = before;
        gemm({a.view(), ta}, {b.view(), tb}, c.view(), options, pool, target);
        // The space between rows too: it must be as it was.
        EXPECT_TRUE(c.data == expected.data) << describe(s, ta, tb, options, target);
      }
    }
  }
}

template <class T>
void expect_exact_for_all_shapes(const GemmOptions& options) {
  for (const Shape& s : kShapes) expect_exact<T>(s, options);
}

TEST(Gemm, MultipliesFloats) { expect_exact_for_all_shapes<float>({}); }
TEST(Gemm, MultipliesDoubles) { expect_exact_for_all_shapes<double>({}); }
TEST(Gemm, MultipliesIntegers) { expect_exact_for_all_shapes<float>({.arithmetic = Arithmetic::kInt16}); }

TEST(Gemm, AddsToTheResultOrSubtractsFromIt) {
  for (const bool accumulate : {false, true}) {
    for (const bool negate : {false, true}) {
      expect_exact<float>({29, 70, 800}, {.accumulate = accumulate, .negate = negate});
      expect_exact<double>({29, 70, 400}, {.accumulate = accumulate, .negate = negate});
      expect_exact<float>({29, 70, 800},
                          {.accumulate = accumulate, .negate = negate, .arithmetic = Arithmetic::kInt16});
    }
  }
}

TEST(Gemm, ComputesOnlyTheTriangleAskedFor) {
  for (const Shape& s :
       {Shape{1, 1, 3}, Shape{31, 31, 20}, Shape{300, 300, 20}, Shape{90, 40, 5}, Shape{40, 90, 5}}) {
    for (const bool accumulate : {false, true}) {
      expect_exact<float>(s, {.accumulate = accumulate, .lower_triangle = true});
      expect_exact<float>(s, {.accumulate = accumulate, .upper_triangle = true});
      expect_exact<double>(s, {.accumulate = accumulate, .lower_triangle = true});
      expect_exact<float>(s, {.lower_triangle = true, .arithmetic = Arithmetic::kInt16});
    }
  }
}

TEST(Gemm, GoesThroughLargeResultsInBlocks) {
  expect_exact<float>({4200, 3, 2}, {});
  expect_exact<float>({3, 4200, 400}, {});
}

TEST(Gemm, ComputesTheTriangleOfALargeResultInBlocks) {
  ThreadPool pool(2);
  const size_t n = 4200;
  const Matrix<float> a = random_integers<float>(n, 1, 1);
  for (const bool lower : {false, true}) {
    Matrix<float> c(n, n);
    std::fill(c.data.begin(), c.data.end(), 1000.f);
    gemm({a.view()}, {a.view(), true}, c.view(), {.lower_triangle = lower, .upper_triangle = !lower}, pool);
    size_t wrong = 0;
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        const bool computed = lower ? j <= i : j >= i;
        wrong += c.at(i, j) != (computed ? a.at(i, 0) * a.at(j, 0) : 1000.f);
      }
    }
    EXPECT_EQ(wrong, 0u);
  }
}

TEST(Gemm, GivesTheSameBitsForAnyNumberOfThreads) {
  const Matrix<float> a = random_reals<float>(300, 900, 1);
  const Matrix<float> b = random_reals<float>(500, 900, 2);
  for (const CpuTarget target : supported_cpu_targets()) {
    for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kInt16}) {
      std::vector<Matrix<float>> results;
      for (const size_t threads : {1u, 2u, 3u}) {
        ThreadPool pool(threads);
        results.emplace_back(300, 500);
        gemm({a.view()}, {b.view(), true}, results.back().view(), {.arithmetic = arithmetic}, pool, target);
      }
      EXPECT_TRUE(results[0].data == results[1].data);
      EXPECT_TRUE(results[0].data == results[2].data);
    }
  }
}

// Callers cut a result into parts as they like.
TEST(Gemm, GivesAnElementTheSameBitsWhateverIsComputedWithIt) {
  ThreadPool pool(2);
  const Matrix<float> a = random_reals<float>(50, 900, 1);
  const Matrix<float> b = random_reals<float>(100, 900, 2);
  for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kInt16}) {
    Matrix<float> whole(50, 100);
    gemm({a.view()}, {b.view(), true}, whole.view(), {.arithmetic = arithmetic}, pool);
    Matrix<float> part(7, 11);
    gemm({a.view().rows(20, 7)}, {b.view().rows(60, 11), true}, part.view(), {.arithmetic = arithmetic},
         pool);
    for (size_t i = 0; i < 7; ++i) {
      for (size_t j = 0; j < 11; ++j) EXPECT_EQ(part.at(i, j), whole.at(20 + i, 60 + j));
    }
  }
}

double norm_of_row(const Matrix<float>& m, size_t row) {
  double sum = 0;
  for (size_t k = 0; k < m.cols; ++k) sum += double{m.at(row, k)} * double{m.at(row, k)};
  return std::sqrt(sum);
}

// a bᵀ, with elements off by at most 1/32700 of the norm of their row in a block of depth.
void expect_close_with_integers(const Matrix<float>& a, const Matrix<float>& b) {
  ThreadPool pool(2);
  const Matrix<float> expected =
      reference<float>({a.view()}, {b.view(), true}, Matrix<float>(a.rows, b.rows), {});
  for (const CpuTarget target : supported_cpu_targets()) {
    for (const bool transposed : {false, true}) {
      Matrix<float> flipped(b.cols, b.rows);
      for (size_t j = 0; j < b.rows; ++j) {
        for (size_t k = 0; k < b.cols; ++k) flipped.at(k, j) = b.at(j, k);
      }
      Matrix<float> c(a.rows, b.rows);
      gemm({a.view()}, {transposed ? b.view() : flipped.view(), transposed}, c.view(),
           {.arithmetic = Arithmetic::kInt16}, pool, target);
      for (size_t i = 0; i < a.rows; ++i) {
        for (size_t j = 0; j < b.rows; ++j) {
          // Of each operand: |Σ δ_k b_k| <= |δ| |b|, |δ| <= √K |a| / 32700; and the roundings of results.
          const double bound = 2.1 * std::sqrt(static_cast<double>(a.cols)) / 32700 + 0x1p-20;
          ASSERT_NEAR(c.at(i, j), expected.at(i, j), bound * norm_of_row(a, i) * norm_of_row(b, j))
              << cpu_target_name(target) << (transposed ? " bt" : "");
        }
      }
    }
  }
}

TEST(Gemm, RoundsToIntegersOfTheScaleThatALineNeeds) {
  Matrix<float> a = random_reals<float>(40, 1000, 1);
  Matrix<float> b = random_reals<float>(70, 1000, 2);
  for (size_t i = 0; i < a.rows; ++i) {
    for (size_t k = 0; k < a.cols; ++k) a.at(i, k) *= std::ldexp(1.f, static_cast<int>(i) - 20);
  }
  for (size_t k = 0; k < b.cols; ++k) b.at(7, k) = 0.f;
  b.at(3, 11) = 1e4f;
  expect_close_with_integers(a, b);
}

// Where |Σ a b| = |a| |b| sums are as large as they can be.
TEST(Gemm, OverflowsNoSumOfIntegers) {
  for (const size_t depth : {1u, 2u, 5u, 767u, 768u, 1537u}) {
    Matrix<float> a(9, depth);
    for (size_t i = 0; i < a.rows; ++i) {
      for (size_t k = 0; k < depth; ++k) {
        const float sizes[] = {1.f, -1.f, 0.99f, 1.01f, 127.f, 1e25f, 1e-30f, k == 0 ? 5.f : 1e-9f, 0.7f};
        a.at(i, k) = sizes[i] * (i == 8 && k % 2 == 1 ? -1.f : 1.f);
      }
    }
    Matrix<float> b = a;
    for (float& value : b.data) value = std::fabs(value) > 1e20f ? 1.f : value;
    expect_close_with_integers(a, b);
  }
}

// And no other line is harmed by one.
TEST(Gemm, MakesResultsOfALineThatIsNotFiniteNaN) {
  ThreadPool pool(1);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    Matrix<float> a = random_reals<float>(20, 100, 1);
    const Matrix<float> b = random_reals<float>(100, 40, 2);
    const Matrix<float> expected = reference<float>({a.view()}, {b.view()}, Matrix<float>(20, 40), {});
    a.at(3, 50) = bad;
    for (const CpuTarget target : supported_cpu_targets()) {
      Matrix<float> c(20, 40);
      gemm({a.view()}, {b.view()}, c.view(), {.arithmetic = Arithmetic::kInt16}, pool, target);
      for (size_t i = 0; i < 20; ++i) {
        for (size_t j = 0; j < 40; ++j) {
          if (i == 3) {
            EXPECT_TRUE(std::isnan(c.at(i, j))) << cpu_target_name(target);
          } else {
            EXPECT_NEAR(c.at(i, j), expected.at(i, j), 0.1);
          }
        }
      }
    }
  }
}

TEST(Gemm, TakesMatricesWithoutRowsOrColumns) {
  ThreadPool pool(1);
  const Matrix<float> a = random_integers<float>(3, 4, 1);
  const MatrixView<float> nothing(nullptr, 3, 0, 0);
  gemm({a.view()}, {MatrixView<const float>(nullptr, 4, 0, 0)}, nothing, {}, pool);
  gemm({MatrixView<const float>(nullptr, 0, 3)}, {a.view()}, {nullptr, 0, 4}, {}, pool);
}

TEST(Gemm, MirrorsTheLowerTriangle) {
  ThreadPool pool(2);
  for (const size_t n : {0u, 1u, 31u, 32u, 33u, 100u}) {
    const Matrix<float> before = random_integers<float>(n, n, 1);
    Matrix<float> c = before;
    mirror_lower(c.view(), pool);
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) EXPECT_EQ(c.at(i, j), before.at(std::max(i, j), std::min(i, j)));
    }
  }
}

}  // namespace
}  // namespace nibble::linalg
