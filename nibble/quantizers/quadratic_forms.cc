#include "nibble/quantizers/quadratic_forms.h"

#include <algorithm>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/check.h"
#include "nibble/linalg/gemm.h"

namespace nibble {
namespace {

constexpr size_t kColumns = 512;  // of H at a time
constexpr size_t kRows = 2048;    // of e at a time: bounds the memory

// sums[r] += factor * e_r · y_r
void add_dots(MatrixView<const float> e, MatrixView<const float> y, double factor, std::span<double> sums,
              ThreadPool& pool) {
  pool.parallel_for(e.rows(), 16, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      const float* a = e.row(r);
      const float* b = y.row(r);
      double dots[4] = {};  // four chains, since one waits for each addition
      size_t i = 0;
      for (; i + 4 <= e.cols(); i += 4) {
        for (size_t k = 0; k < 4; ++k) dots[k] += double{a[i + k]} * double{b[i + k]};
      }
      for (; i < e.cols(); ++i) dots[0] += double{a[i]} * double{b[i]};
      sums[r] += factor * ((dots[0] + dots[1]) + (dots[2] + dots[3]));
    }
  });
}

}  // namespace

void quadratic_forms(MatrixView<const float> e, MatrixView<const float> h, std::span<double> sums,
                     ThreadPool& pool) {
  const size_t n = e.cols();
  NIBBLE_CHECK(h.rows() == n && h.cols() == n && sums.size() == e.rows());
  std::fill(sums.begin(), sums.end(), 0.0);
  AlignedBuffer buffer(std::min(kRows, e.rows()) * std::min(kColumns, n) * sizeof(float));
  for (size_t r0 = 0; r0 < e.rows(); r0 += kRows) {
    const size_t rows = std::min(kRows, e.rows() - r0);
    const MatrixView<const float> part = e.rows(r0, rows);
    const std::span<double> part_sums = sums.subspan(r0, rows);
    // H is symmetric: blocks below its diagonal count twice, those above are not computed.
    for (size_t j0 = 0; j0 < n; j0 += kColumns) {
      const size_t width = std::min(kColumns, n - j0);
      const size_t below = n - j0 - width;
      const MatrixView<float> y(buffer.as<float>(), rows, width);
      const MatrixView<const float> e_block = part.cols(j0, width);
      const MatrixView<const float> h_block = h.cols(j0, width);
      linalg::gemm({e_block}, {h_block.rows(j0, width)}, y, {}, pool);
      add_dots(e_block, y, 1.0, part_sums, pool);
      if (below == 0) continue;
      linalg::gemm({part.cols(j0 + width, below)}, {h_block.rows(j0 + width, below)}, y, {}, pool);
      add_dots(e_block, y, 2.0, part_sums, pool);
    }
  }
}

}  // namespace nibble
