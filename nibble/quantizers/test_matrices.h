#ifndef NIBBLE_QUANTIZERS_TEST_MATRICES_H_
#define NIBBLE_QUANTIZERS_TEST_MATRICES_H_

// Weights and inputs for the tests: integer formulas, for which the original libraries' results are
// known, and random ones.

#include <cmath>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/base/matrix_view.h"
#include "nibble/quantizers/gptq_settings.h"

namespace nibble {

inline SolvedWeight solved_or_fail(Expected<SolvedWeight> solved) {
  if (!solved) throw std::runtime_error(to_string(solved.error()));
  return std::move(*solved);
}

struct TestMatrix {
  TestMatrix(size_t row_count, size_t col_count)
      : values(row_count * col_count), rows(row_count), cols(col_count) {}
  float& at(size_t r, size_t c) { return values[r * cols + c]; }
  float at(size_t r, size_t c) const { return values[r * cols + c]; }
  MatrixView<const float> view() const { return {values.data(), rows, cols}; }
  MatrixView<float> view() { return {values.data(), rows, cols}; }
  void scale_column(size_t c, float factor) {
    for (size_t r = 0; r < rows; ++r) at(r, c) *= factor;
  }

  std::vector<float> values;
  size_t rows;
  size_t cols;
};

inline TestMatrix formula_weight(size_t out, size_t in) {
  TestMatrix w(out, in);
  for (size_t o = 0; o < out; ++o) {
    for (size_t i = 0; i < in; ++i) {
      const size_t k = (131 * o + 71 * i + 17 * o * i + 29 * i * i) % 1009;
      w.at(o, i) = (static_cast<float>(k) - 504.f) / 512.f;
    }
  }
  return w;
}

inline TestMatrix formula_inputs(size_t tokens, size_t in) {
  TestMatrix x(tokens, in);
  for (size_t n = 0; n < tokens; ++n) {
    for (size_t i = 0; i < in; ++i) {
      const size_t k = (37 * n + 101 * i + 13 * n * i + 7 * n * n) % 251;
      x.at(n, i) = (static_cast<float>(k) - 125.f) / 64.f;
    }
  }
  return x;
}

inline TestMatrix random_matrix(size_t rows, size_t cols, unsigned seed) {
  TestMatrix m(rows, cols);
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  for (float& v : m.values) v = normal(rng);
  return m;
}

// Inputs of which some are larger than others, and which depend on each other.
inline TestMatrix correlated_inputs(size_t tokens, size_t in, unsigned seed) {
  TestMatrix x = random_matrix(tokens, in, seed);
  std::mt19937 rng(seed + 1);
  std::uniform_real_distribution<float> size(-2.f, 2.f);
  for (size_t i = 0; i < in; ++i) {
    const float factor = std::exp(size(rng));
    for (size_t n = 0; n < tokens; ++n) {
      x.at(n, i) = factor * (x.at(n, i) + (i > 0 ? 0.5f * x.at(n, i / 2) : 0.f));
    }
  }
  return x;
}

// factor * xᵀ x
inline TestMatrix second_moments(const TestMatrix& x, double factor) {
  TestMatrix h(x.cols, x.cols);
  for (size_t i = 0; i < x.cols; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (size_t n = 0; n < x.rows; ++n) sum += double{x.at(n, i)} * double{x.at(n, j)};
      h.at(i, j) = h.at(j, i) = static_cast<float>(factor * sum);
    }
  }
  return h;
}

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_TEST_MATRICES_H_
