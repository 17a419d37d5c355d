#ifndef NIBBLE_NN_INT8_WEIGHT_H_
#define NIBBLE_NN_INT8_WEIGHT_H_

// A float weight as 8-bit integers: how `--compute auto` keeps the head of a quantized model, which is
// stored in float16 and would be half of what a small model reads for a token.

#include <optional>

#include "nibble/base/tensor.h"
#include "nibble/base/thread_pool.h"
#include "nibble/quantization/quantized_weight.h"

namespace nibble {

inline constexpr size_t kInt8WeightGroup = 32;

// Symmetric in groups of kInt8WeightGroup inputs: scale = max|w| / 127, code = 128 + rne(w / scale).
// weight: F32, F16 or BF16 [out_features, in_features]. Nothing where a value is not finite, or the
// scale would not be: such a weight stays as it is.
std::optional<QuantizedWeight> to_int8(const Tensor& weight, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_NN_INT8_WEIGHT_H_
