#include "nibble/linalg/cholesky.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace nibble::linalg {
namespace {

constexpr double kUntouched = 12345.0;
constexpr size_t kPadding = 3;

// A square matrix whose rows are further apart than they are long.
struct Square {
  explicit Square(size_t size) : n(size), data(size * (size + kPadding), kUntouched) {}
  double& at(size_t i, size_t j) { return data[i * (n + kPadding) + j]; }
  MatrixView<double> view() { return {data.data(), n, n, n + kPadding}; }
  size_t n;
  std::vector<double> data;
};

std::vector<double> random_values(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<double> values(count);
  for (double& value : values) value = uniform(random);
  return values;
}

// X Xᵀ / n + I.
Square positive_definite(size_t n) {
  const std::vector<double> x = random_values(n * n, unsigned(n));
  Square a(n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (size_t k = 0; k < n; ++k) sum += x[i * n + k] * x[j * n + k];
      a.at(i, j) = a.at(j, i) = sum / double(n) + (i == j ? 1 : 0);
    }
  }
  return a;
}

// An upper triangle with a diagonal that keeps its inverse tame; kUntouched below.
Square upper_triangle(size_t n) {
  const std::vector<double> x = random_values(n * n, unsigned(n));
  Square r(n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j)
      r.at(i, j) = i == j ? 1.5 + x[i * n + j] : x[i * n + j] / std::sqrt(double(n));
  }
  return r;
}

double dot_rows(Square& m, size_t i, size_t j, size_t begin, size_t end) {
  double sum = 0;
  for (size_t k = begin; k < end; ++k) sum += m.at(i, k) * m.at(j, k);
  return sum;
}

// Around one leaf, around its multiples, and with several levels of halves.
constexpr size_t kSizes[] = {1, 2, 63, 64, 65, 127, 128, 130, 200, 333};

TEST(Cholesky, LowerFactorTimesItsTransposeIsTheMatrix) {
  ThreadPool pool(2);
  for (const size_t n : kSizes) {
    Square a = positive_definite(n);
    Square factor = a;
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = i + 1; j < n; ++j) factor.at(i, j) = kUntouched;
    }
    ASSERT_EQ(cholesky_lower(factor.view(), pool), std::nullopt) << n;
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j <= i; ++j) ASSERT_NEAR(dot_rows(factor, i, j, 0, j + 1), a.at(i, j), 1e-13) << n;
      for (size_t j = i + 1; j < n; ++j) ASSERT_EQ(factor.at(i, j), kUntouched) << n;
    }
  }
}

TEST(Cholesky, UpperFactorTimesItsTransposeIsTheMatrix) {
  ThreadPool pool(2);
  for (const size_t n : kSizes) {
    Square a = positive_definite(n);
    Square factor = a;
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < i; ++j) factor.at(i, j) = kUntouched;
    }
    ASSERT_EQ(cholesky_upper(factor.view(), pool), std::nullopt) << n;
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = i; j < n; ++j) ASSERT_NEAR(dot_rows(factor, i, j, j, n), a.at(i, j), 1e-13) << n;
      for (size_t j = 0; j < i; ++j) ASSERT_EQ(factor.at(i, j), kUntouched) << n;
    }
  }
}

TEST(Cholesky, TellsTheFirstPivotThatIsNotPositive) {
  ThreadPool pool(2);
  const size_t n = 200;
  for (const size_t bad : {0u, 1u, 63u, 64u, 150u, 199u}) {
    for (const double pivot :
         {-1.0, 0.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      Square lower = positive_definite(n);
      lower.at(bad, bad) = pivot;
      Square upper = lower;
      EXPECT_EQ(cholesky_lower(lower.view(), pool), bad) << pivot;
      EXPECT_EQ(cholesky_upper(upper.view(), pool), bad) << pivot;
    }
  }
}

TEST(Cholesky, UpperTriangleTimesItsInverseIsOne) {
  ThreadPool pool(2);
  for (const size_t n : {1u, 2u, 63u, 64u, 65u, 128u, 130u, 333u, 700u}) {
    Square r = upper_triangle(n);
    Square inverse = r;
    invert_upper(inverse.view(), pool);
    for (size_t i = 0; i < r.n; ++i) {
      for (size_t j = 0; j < i; ++j) ASSERT_EQ(inverse.at(i, j), kUntouched) << n;
      for (size_t j = i; j < r.n; ++j) {
        double sum = 0;
        for (size_t k = i; k <= j; ++k) sum += r.at(i, k) * inverse.at(k, j);
        ASSERT_NEAR(sum, i == j ? 1 : 0, 1e-11) << n;
      }
    }
  }
}

TEST(Cholesky, SolvedRowsTimesTheMatrixAreTheRows) {
  ThreadPool pool(2);
  for (const size_t n : kSizes) {
    for (const size_t rows : {1u, 7u, 100u}) {
      Square a = positive_definite(n);
      Square factor = a;
      ASSERT_EQ(cholesky_upper(factor.view(), pool), std::nullopt);
      const std::vector<double> right = random_values(rows * n, 7);
      std::vector<double> x = right;
      solve_rows(factor.view(), {x.data(), rows, n}, pool);
      for (size_t i = 0; i < rows; ++i) {
        for (size_t j = 0; j < n; ++j) {
          double sum = 0;
          for (size_t k = 0; k < n; ++k) sum += x[i * n + k] * a.at(k, j);
          ASSERT_NEAR(sum, right[i * n + j], 1e-12) << n;
        }
      }
    }
  }
}

TEST(Cholesky, GivesTheSameBitsForAnyNumberOfThreads) {
  const size_t n = 300;
  std::vector<std::vector<double>> results;
  for (const size_t threads : {1u, 2u, 3u}) {
    ThreadPool pool(threads);
    Square lower = positive_definite(n);
    Square upper = lower;
    std::vector<double> x = random_values(50 * n, 3);
    ASSERT_EQ(cholesky_lower(lower.view(), pool), std::nullopt);
    ASSERT_EQ(cholesky_upper(upper.view(), pool), std::nullopt);
    solve_rows(upper.view(), {x.data(), 50, n}, pool);
    invert_upper(upper.view(), pool);
    results.push_back(lower.data);
    results.back().insert(results.back().end(), upper.data.begin(), upper.data.end());
    results.back().insert(results.back().end(), x.begin(), x.end());
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(Cholesky, TakesMatricesWithoutRows) {
  ThreadPool pool(1);
  EXPECT_EQ(cholesky_lower(MatrixView<double>(nullptr, 0, 0), pool), std::nullopt);
  EXPECT_EQ(cholesky_upper(MatrixView<double>(nullptr, 0, 0), pool), std::nullopt);
  invert_upper(MatrixView<double>(nullptr, 0, 0), pool);
}

}  // namespace
}  // namespace nibble::linalg
