#include "nibble/kernels/vocabulary.h"

#define NIBBLE_TARGET_FILE "nibble/kernels/vocabulary-inl.h"
#include "nibble/kernels/foreach_target.h"

namespace nibble::kernels {

Largest find_largest(const float* values, size_t count, CpuTarget target) {
  return NIBBLE_CHOOSE(find_largest, target)(values, count);
}

size_t find_at_least(const float* values, size_t begin, size_t end, float threshold, CpuTarget target) {
  return NIBBLE_CHOOSE(find_at_least, target)(values, begin, end, threshold);
}

double exponential_weights(const float* values, size_t count, float largest, float factor, float* weights,
                           CpuTarget target) {
  return NIBBLE_CHOOSE(exponential_weights, target)(values, count, largest, factor, weights);
}

double weight_sum(const float* weights, size_t count, CpuTarget target) {
  return NIBBLE_CHOOSE(weight_sum, target)(weights, count);
}

}  // namespace nibble::kernels
