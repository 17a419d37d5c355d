#include "nibble/kernels/input_groups.h"

namespace nibble::kernels {

InputGroups sort_inputs(const QuantizedWeight& weight) {
  // Counting sort: where each group begins, then each input to its group's next place.
  std::vector<size_t> next(weight.num_groups + 1, 0);
  for (size_t i = 0; i < weight.in_features; ++i) ++next[weight.group_of(i) + 1];
  InputGroups result;
  for (size_t g = 0; g < weight.num_groups; ++g) {
    next[g + 1] += next[g];
    if (next[g] < next[g + 1]) result.runs.push_back({next[g], next[g + 1], g});
  }
  result.order.resize(weight.in_features);
  bool identity = true;
  for (size_t i = 0; i < weight.in_features; ++i) {
    const size_t position = next[weight.group_of(i)]++;
    result.order[position] = static_cast<uint32_t>(i);
    identity = identity && position == i;
  }
  if (identity) result.order.clear();
  return result;
}

void gather(std::span<const float> row, std::span<const uint32_t> order, float* out) {
  for (size_t p = 0; p < order.size(); ++p) out[p] = order[p] == kNoInput ? 0.f : row[order[p]];
}

}  // namespace nibble::kernels
