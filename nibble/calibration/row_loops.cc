#include "nibble/calibration/row_loops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "nibble/kernels/bfloat16.h"
#include "nibble/kernels/elementwise.h"

namespace nibble {
namespace {

constexpr size_t kColsPerTask = 64;

// A row of zeros would divide by its size.
constexpr double kSmallestMeanSquare = 1e-20;

// Eight sums side by side, so that the compiler may use vectors; added up in a fixed order.
template <class Term>
double sum_of(size_t count, Term term) {
  constexpr size_t kLanes = 8;
  std::array<double, kLanes> sums = {};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += term(i + lane);
  }
  for (; i < count; ++i) sums[i % kLanes] += term(i);
  double sum = 0.0;
  for (const double lane : sums) sum += lane;
  return sum;
}

template <class Row>
void for_rows(size_t rows, ThreadPool& pool, Row row) {
  pool.parallel_for(rows, kRowsPerChunk, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) row(r);
  });
}

}  // namespace

void add_bias(const float* bias, MatrixView<float> y, ThreadPool& pool) {
  for_rows(y.rows(), pool, [&](size_t r) { kernels::add(bias, y.cols(), y.row(r)); });
}

void copy_rows(MatrixView<const float> x, MatrixView<float> y, ThreadPool& pool) {
  for_rows(y.rows(), pool, [&](size_t r) { std::copy_n(x.row(r), y.cols(), y.row(r)); });
}

void subtract_rows(MatrixView<const float> x, MatrixView<float> y, ThreadPool& pool) {
  for_rows(y.rows(), pool, [&](size_t r) {
    const float* const from = x.row(r);
    float* const to = y.row(r);
    for (size_t c = 0; c < y.cols(); ++c) to[c] -= from[c];
  });
}

void round_rows(DType dtype, MatrixView<float> y, ThreadPool& pool) {
  if (dtype == DType::kF32) return;
  for_rows(y.rows(), pool, [&](size_t r) {
    constexpr size_t kChunk = 512;
    uint16_t rounded[kChunk];
    const std::span<float> row = y.row_span(r);
    for (size_t c = 0; c < row.size(); c += kChunk) {
      const size_t count = std::min(kChunk, row.size() - c);
      kernels::floats_to_bf16(row.data() + c, count, rounded);
      kernels::bf16_to_floats(rounded, count, row.data() + c);
    }
  });
}

void add_magnitudes(MatrixView<const float> x, std::span<double> sums, ThreadPool& pool) {
  pool.parallel_for(sums.size(), kColsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = 0; r < x.rows(); ++r) {
      const float* const row = x.row(r);
      for (size_t c = begin; c < end; ++c) sums[c] += double{std::fabs(row[c])};
    }
  });
}

void weigh_rows(MatrixView<const float> stream, MatrixView<float> x, MatrixView<float> e, ThreadPool& pool) {
  for_rows(x.rows(), pool, [&](size_t r) {
    const float* const row = stream.row(r);
    const double sum = sum_of(stream.cols(), [&](size_t c) { return double{row[c]} * double{row[c]}; });
    const double mean = sum / static_cast<double>(stream.cols());
    const auto weight = static_cast<float>(1.0 / std::sqrt(std::max(mean, kSmallestMeanSquare)));
    for (float& v : x.row_span(r)) v *= weight;
    for (float& v : e.row_span(r)) v *= weight;
  });
}

void add_distance(MatrixView<const float> q, MatrixView<const float> f, Distance& sums, ThreadPool& pool) {
  std::vector<Distance> rows(q.rows());
  for_rows(q.rows(), pool, [&](size_t r) {
    const float* const a = q.row(r);
    const float* const b = f.row(r);
    rows[r].size = sum_of(f.cols(), [&](size_t c) { return double{b[c]} * double{b[c]}; });
    rows[r].difference = sum_of(f.cols(), [&](size_t c) {
      const double d = double{a[c]} - double{b[c]};
      return d * d;
    });
  });
  for (const Distance& row : rows) {
    sums.difference += row.difference;
    sums.size += row.size;
  }
}

}  // namespace nibble
