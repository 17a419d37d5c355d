#ifndef NIBBLE_CALIBRATION_ROW_LOOPS_H_
#define NIBBLE_CALIBRATION_ROW_LOOPS_H_

// Loops over activations, one token per row, on all threads. The same bits for any number of threads: work
// is split over rows, or over columns where rows are summed.

#include <span>

#include "nibble/base/dtype.h"
#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"

namespace nibble {

inline constexpr size_t kRowsPerChunk = 8;  // that one task takes

// Every row of y += bias. bias: [y.cols()].
void add_bias(const float* bias, MatrixView<float> y, ThreadPool& pool);

// y = x; of the same shape.
void copy_rows(MatrixView<const float> x, MatrixView<float> y, ThreadPool& pool);

// y -= x; of the same shape.
void subtract_rows(MatrixView<const float> x, MatrixView<float> y, ThreadPool& pool);

// y, rounded to what `dtype` (kBF16 or kF32) holds.
void round_rows(DType dtype, MatrixView<float> y, ThreadPool& pool);

// sums[c] += |x| over the rows of column c. sums: [x.cols()].
void add_magnitudes(MatrixView<const float> x, std::span<double> sums, ThreadPool& pool);

// Rows of x and e times 1 / root mean square of the stream's row: their products weigh a token by
// 1 / mean(stream^2).
void weigh_rows(MatrixView<const float> stream, MatrixView<float> x, MatrixView<float> e, ThreadPool& pool);

// Sums of q - f squared and of f squared, all elements.
struct Distance {
  double difference = 0.0;
  double size = 0.0;

  // Of squares; 0 where there is nothing to compare with.
  double relative() const { return size > 0.0 ? difference / size : 0.0; }
};
void add_distance(MatrixView<const float> q, MatrixView<const float> f, Distance& sums, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_CALIBRATION_ROW_LOOPS_H_
