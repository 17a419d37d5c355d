#ifndef NIBBLE_KERNELS_VOCABULARY_H_
#define NIBBLE_KERNELS_VOCABULARY_H_

// Passes over the logits of a whole vocabulary: what choosing a token needs of all of them.

#include <cstddef>

#include "nibble/base/cpu_target.h"

namespace nibble::kernels {

struct Largest {
  size_t index = 0;      // the first of equal ones
  bool damaged = false;  // a NaN or +infinity is among the values; `index` says nothing then
};

// count > 0.
Largest find_largest(const float* values, size_t count, CpuTarget target = cpu_target());

// The first index in [begin, end) whose value reaches the threshold; `end` if there is none.
size_t find_at_least(const float* values, size_t begin, size_t end, float threshold,
                     CpuTarget target = cpu_target());

// weights[i] = e^((values[i] - largest) * factor) but for a rounding of the exponent (relative error 4e-7
// near 1, 2e-5 at the smallest); 0 where that is below 1e-37. Returns their sum, taken in double over blocks
// of kWeightBlock. `values` may hold -infinity; largest is finite, factor > 0.
inline constexpr size_t kWeightBlock = 1024;
double exponential_weights(const float* values, size_t count, float largest, float factor, float* weights,
                           CpuTarget target = cpu_target());

// The sum of one block as exponential_weights() counted it.
double weight_sum(const float* weights, size_t count, CpuTarget target = cpu_target());

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_VOCABULARY_H_
