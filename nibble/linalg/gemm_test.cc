#include "nibble/linalg/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "nibble/base/float16.h"

namespace nibble::linalg {
namespace {

constexpr size_t kPadding = 5;

// A matrix whose rows are further apart than they are long.
template <class T>
struct Matrix {
  Matrix(size_t r, size_t c) : rows(r), cols(c), data(r * (c + kPadding) + 1) {}
  T& at(size_t i, size_t j) { return data[i * (cols + kPadding) + j]; }
  T at(size_t i, size_t j) const { return data[i * (cols + kPadding) + j]; }
  MatrixView<T> view() { return {data.data(), rows, cols, cols + kPadding}; }
  MatrixView<const T> view() const { return {data.data(), rows, cols, cols + kPadding}; }
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
         (o.upper_triangle ? " upper" : "") + (o.arithmetic == Arithmetic::kBf16 ? " bf16" : "");
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
TEST(Gemm, MultipliesBfloat16) { expect_exact_for_all_shapes<float>({.arithmetic = Arithmetic::kBf16}); }

TEST(Gemm, AddsToTheResultOrSubtractsFromIt) {
  for (const bool accumulate : {false, true}) {
    for (const bool negate : {false, true}) {
      expect_exact<float>({29, 70, 800}, {.accumulate = accumulate, .negate = negate});
      expect_exact<double>({29, 70, 400}, {.accumulate = accumulate, .negate = negate});
      expect_exact<float>({29, 70, 800},
                          {.accumulate = accumulate, .negate = negate, .arithmetic = Arithmetic::kBf16});
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
      expect_exact<float>(s, {.lower_triangle = true, .arithmetic = Arithmetic::kBf16});
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
    for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kBf16}) {
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
  for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kBf16}) {
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

TEST(Gemm, RoundsOperandsToTheNearestBfloat16AndNotTheirProducts) {
  ThreadPool pool(2);
  const Matrix<float> a = random_reals<float>(40, 1000, 1);
  const Matrix<float> b = random_reals<float>(1000, 70, 2);
  Matrix<float> rounded_a = a;
  Matrix<float> rounded_b = b;
  for (float& value : rounded_a.data) value = bf16_to_float(float_to_bf16(value));
  for (float& value : rounded_b.data) value = bf16_to_float(float_to_bf16(value));
  const Matrix<float> expected =
      reference<float>({rounded_a.view()}, {rounded_b.view()}, Matrix<float>(40, 70), {});
  for (const CpuTarget target : supported_cpu_targets()) {
    Matrix<float> c(40, 70);
    gemm({a.view()}, {b.view()}, c.view(), {.arithmetic = Arithmetic::kBf16}, pool, target);
    for (size_t i = 0; i < 40; ++i) {
      // Operands that are not rounded, or are cut off, are wrong by 0.1 here.
      for (size_t j = 0; j < 70; ++j)
        ASSERT_NEAR(c.at(i, j), expected.at(i, j), 1e-4) << cpu_target_name(target);
    }
  }
}

// A sum of one product is the product: ties, overflow and what is not a number.
TEST(Gemm, RoundsSpecialValuesToBfloat16AsTheConversionDoes) {
  ThreadPool pool(1);
  const float values[] = {1.00390625f,
                          1.01171875f,
                          -1.00390625f,
                          3.4e38f,
                          -3.4e38f,
                          std::numeric_limits<float>::infinity(),
                          0.f,
                          1e-30f,
                          std::numeric_limits<float>::quiet_NaN(),
                          std::bit_cast<float>(0x7FFFFFFFu)};
  const size_t count = std::size(values);
  const float one = 1.f;
  for (const CpuTarget target : supported_cpu_targets()) {
    for (const bool transposed : {false, true}) {
      std::vector<float> c(count);
      const MatrixView<const float> row(values, 1, count);
      const MatrixView<const float> column(values, count, 1);
      gemm({MatrixView<const float>(&one, 1, 1)}, {transposed ? column : row, transposed},
           {c.data(), 1, count}, {.arithmetic = Arithmetic::kBf16}, pool, target);
      for (size_t i = 0; i < count; ++i) {
        const float expected = bf16_to_float(float_to_bf16(values[i]));
        if (std::isnan(expected)) {
          EXPECT_TRUE(std::isnan(c[i])) << i;
        } else {
          EXPECT_EQ(c[i], expected) << i;
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
