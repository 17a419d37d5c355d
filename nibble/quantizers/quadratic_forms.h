#ifndef NIBBLE_QUANTIZERS_QUADRATIC_FORMS_H_
#define NIBBLE_QUANTIZERS_QUADRATIC_FORMS_H_

// What an error of the weights does to the outputs: e H eᵀ for each row e.

#include <span>

#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"

namespace nibble {

// sums[r] = e_r H e_rᵀ. e: [rows, n]; h: [n, n], symmetric; sums: [rows]. Products in float32, sums of
// them in double. The same bits for any number of threads.
void quadratic_forms(MatrixView<const float> e, MatrixView<const float> h, std::span<double> sums,
                     ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_QUADRATIC_FORMS_H_
