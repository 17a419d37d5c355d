#ifndef NIBBLE_NN_LINEAR_SIZE_H_
#define NIBBLE_NN_LINEAR_SIZE_H_

// What a linear layer takes in memory, from headers alone: what make_linear() of linear.h builds in
// ComputeMode::kAuto, without its weights.

#include <cstddef>
#include <optional>

#include "nibble/base/dtype.h"
#include "nibble/quantization/quantized_weight.h"

namespace nibble {

// How a weight [out_features, in_features] is stored.
struct LinearStorage {
  std::optional<DType> dtype = {};  // a float weight; nothing: codes, as below
  WeightFormula formula = WeightFormula::kAffine;
  int bits = 4;
  size_t group_size = 0;      // as in QuantizedWeight: in_features for one group
  bool zeros_differ = false;  // kAffine: zero points that are not all the same (asymmetric grids)
  bool sorted = false;        // kAffine: inputs are in another order than groups (desc_act)

  bool is_float() const { return dtype.has_value(); }
};

enum class LinearKind { kDense, kSmallCodes, kBytes, kFloatRows };  // small: less than a byte

struct LinearSize {
  LinearKind kind = LinearKind::kDense;
  size_t weight_bytes = 0;  // Linear::weight_bytes(): what one token reads
  // Resident: large buffers are filled up to whole huge pages. Of a float weight none: it stays a part of
  // the mapped file.
  size_t buffer_bytes = 0;
  // Scratch of forward() for `tokens`, taken from the arena.
  size_t scratch_bytes(size_t tokens, size_t threads) const;

  size_t out_features = 0;
  size_t in_features = 0;
  size_t padded_inputs = 0;  // in whole blocks
  size_t num_groups = 0;
  size_t strip_bytes = 0;  // of codes of 16 outputs; small codes and bytes
  bool reorders = false;   // inputs are gathered before they are multiplied
  bool llm_int8 = false;
  // Of codes of activations: 2 with ActivationBits::k16, which for weights of up to 4 bits the caller knows.
  size_t rows_per_token = 1;
};

// Scales are taken for float16, as they nearly always are; only their values could tell. huge_pages: whether
// the machine has transparent ones.
LinearSize linear_size(size_t out_features, size_t in_features, const LinearStorage& storage,
                       bool huge_pages);

// Scratch that forward_gated() takes beside that of one of both; nothing where it leaves them to be run by
// themselves. Weights that are reordered are taken to have the same order, as those of one input have.
std::optional<size_t> gated_scratch_bytes(const LinearSize& gate, const LinearSize& up, size_t tokens,
                                          size_t threads);

// Bytes that stay resident of a buffer of base/aligned_buffer.h.
size_t buffer_resident_bytes(size_t bytes, bool huge_pages);

}  // namespace nibble

#endif  // NIBBLE_NN_LINEAR_SIZE_H_
