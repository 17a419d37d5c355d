#ifndef NIBBLE_KERNELS_INPUT_GROUPS_H_
#define NIBBLE_KERNELS_INPUT_GROUPS_H_

// The inputs of a weight, sorted so that those which share a scale are neighbours.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nibble/quantization/quantized_weight.h"

namespace nibble::kernels {

struct InputGroups {
  struct Run {
    size_t begin;  // positions [begin, end)
    size_t end;
    size_t group;  // row of the scales
  };
  std::vector<uint32_t> order;  // [in_features]: position -> input; empty where it is the identity
  std::vector<Run> runs;        // in ascending order; groups without inputs have none

  size_t input(size_t position) const { return order.empty() ? position : order[position]; }
};

// kAffine, kOffset: a stable sort by group, so that act-order (g_idx) costs a gather of the
// activations and nothing in the kernels. The weight is consistent: group indices < num_groups.
InputGroups sort_inputs(const QuantizedWeight& weight);

inline constexpr uint32_t kNoInput = UINT32_MAX;

// out[p] = row[order[p]], or 0 where that is kNoInput.
void gather(std::span<const float> row, std::span<const uint32_t> order, float* out);

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_INPUT_GROUPS_H_
