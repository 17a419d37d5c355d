#ifndef NIBBLE_QUANTIZERS_AFFINE_WEIGHT_H_
#define NIBBLE_QUANTIZERS_AFFINE_WEIGHT_H_

#include <algorithm>
#include <utility>
#include <vector>

#include "nibble/quantization/quantized_weight.h"

namespace nibble {

// Room for what a quantizer finds: codes, scales and zero points are 0; inputs in their natural order.
// group_size: inputs per group, 0 for all of them. codes: memory to use again; what is in it may stay.
inline QuantizedWeight make_affine_weight(size_t out_features, size_t in_features, int bits,
                                          size_t group_size, std::vector<uint8_t> codes = {}) {
  QuantizedWeight weight;
  weight.formula = WeightFormula::kAffine;
  weight.out_features = out_features;
  weight.in_features = in_features;
  weight.bits = bits;
  weight.group_size = group_size == 0 ? in_features : std::min(group_size, in_features);
  weight.num_groups = (in_features + weight.group_size - 1) / weight.group_size;
  weight.codes = std::move(codes);
  weight.codes.resize(out_features * in_features);
  weight.scales.resize(weight.num_groups * out_features);
  weight.zeros.resize(weight.num_groups * out_features);
  weight.rounding = DType::kF16;
  weight.dtype = DType::kF16;
  return weight;
}

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_AFFINE_WEIGHT_H_
