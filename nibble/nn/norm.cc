#include "nibble/nn/norm.h"

#include "nibble/kernels/elementwise.h"

namespace nibble {
namespace {

constexpr size_t kRowsPerTask = 8;

}  // namespace

void Norm::forward(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const {
  const float* const shift = bias.empty() ? nullptr : bias.data();
  context.pool.parallel_for(x.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      for (size_t c = 0; c < x.cols(); c += size()) {
        if (kind == NormKind::kRms) {
          kernels::rms_norm(x.row(r) + c, weight.data(), eps, size(), y.row(r) + c);
        } else {
          kernels::layer_norm(x.row(r) + c, weight.data(), shift, eps, size(), y.row(r) + c);
        }
      }
    }
  });
}

}  // namespace nibble
