#ifndef NIBBLE_NN_NORM_H_
#define NIBBLE_NN_NORM_H_

// RMSNorm (arXiv:1910.07467) and LayerNorm over the last dimension.

#include <vector>

#include "nibble/nn/linear.h"

namespace nibble {

enum class NormKind { kRms, kLayer };

struct Norm {
  NormKind kind = NormKind::kRms;
  std::vector<float> weight;  // [n]; the 1 of Gemma's (1 + weight) is already added
  std::vector<float> bias;    // [n], or empty
  float eps = 1e-6f;

  size_t group = 0;  // values normalised together; 0: all n

  size_t size() const { return weight.size(); }

  // Each row of x, or each run of size() values in it (heads of a query): `group` by `group`, where a weight
  // differs from head to head. y may be x.
  void forward(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const;
};

}  // namespace nibble

#endif  // NIBBLE_NN_NORM_H_
