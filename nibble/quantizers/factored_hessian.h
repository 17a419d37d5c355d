#ifndef NIBBLE_QUANTIZERS_FACTORED_HESSIAN_H_
#define NIBBLE_QUANTIZERS_FACTORED_HESSIAN_H_

// The damped second moments of a layer's input, in the order in which its columns will be rounded,
// and their factor. Linears that read the same input share it.

#include <cstdint>
#include <optional>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"

namespace nibble {

enum class ColumnOrder {
  // In both, columns inside a group are ordered by smallest conditional variance from the end.
  kMinPivot,    // groups of neighbours, by largest diagonal
  kActivation,  // desc_act: groups are runs of all columns by falling diagonal
};

struct FactoredHessian {
  size_t size = 0;
  size_t group_size = 0;        // of the order: inputs per group (the last one may be short)
  std::vector<uint32_t> order;  // [size]: order[p] is the input that is rounded at step p
  std::vector<uint32_t> dead;   // inputs that were always 0, ascending
  double damp = 0.0;            // relative to the mean diagonal; what was used in the end
  AlignedBuffer damped;         // float [size, size], symmetric: Hd, in that order
  AlignedBuffer factor;         // float [size, size], upper triangular, zeros below: Hd = R Rᵀ

  MatrixView<const float> damped_view() const { return {damped.as<float>(), size, size}; }
  MatrixView<const float> factor_view() const { return {factor.as<float>(), size, size}; }
};

// A damping for second moments of so many tokens: 2 in_features / tokens, within 0.01 to 0.2. Along
// directions that few tokens excite, a solver that believes them fits the calibration data instead of the
// model (docs/quantizers.md has what was measured).
double damping_for(size_t tokens, size_t in_features);

// gram: [size, size], symmetric, second moments of the input. Dead inputs get the mean diagonal of the
// others. A pivot that is not positive doubles the damping, from max(damp, 1e-4); nothing when it
// would pass 1 (a gram with NaN, infinities, or all zeros): the caller rounds to nearest then.
std::optional<FactoredHessian> factor_hessian(MatrixView<const float> gram, size_t group_size,
                                              ColumnOrder order, double damp, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_FACTORED_HESSIAN_H_
