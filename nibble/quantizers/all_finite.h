#ifndef NIBBLE_QUANTIZERS_ALL_FINITE_H_
#define NIBBLE_QUANTIZERS_ALL_FINITE_H_

#include <atomic>

#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"

namespace nibble {

inline bool all_finite(MatrixView<const float> matrix, ThreadPool& pool) {
  std::atomic<bool> finite = true;
  pool.parallel_for(matrix.rows(), 16, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      float zero = 0.f;  // NaN once anything is not finite
      for (const float v : matrix.row_span(r)) zero += v * 0.f;
      if (zero != 0.f) finite = false;
    }
  });
  return finite;
}

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_ALL_FINITE_H_
