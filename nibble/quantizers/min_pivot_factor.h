#ifndef NIBBLE_QUANTIZERS_MIN_PIVOT_FACTOR_H_
#define NIBBLE_QUANTIZERS_MIN_PIVOT_FACTOR_H_

// Pivoted Cholesky from the last column to the first, where pivots stay in their group.

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"

namespace nibble {

// The groups, positions [begin, end) of `order`, are eliminated from the last to the first; inside a
// group always the column with the smallest variance given those eliminated before, of equal ones the
// lower input. That order is written to `order` (last eliminated first), the factor of the permuted
// matrix, gram = R Rᵀ with the diagonal replaced, to the upper triangle of r. The rest of r is
// garbage. False where a pivot is not positive and finite.
bool min_pivot_factor(MatrixView<const float> gram, std::span<const double> diagonal,
                      std::span<const std::pair<size_t, size_t>> groups, std::vector<uint32_t>& order,
                      MatrixView<double> r, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_MIN_PIVOT_FACTOR_H_
