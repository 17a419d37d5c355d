#include "nibble/nn/norm.h"

#include "nibble/kernels/elementwise.h"

namespace nibble {
namespace {

constexpr size_t kRowsPerTask = 8;

}  // namespace

void Norm::forward(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const {
  const size_t step = group == 0 ? size() : group;
  context.pool.parallel_for(x.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      for (size_t c = 0; c < x.cols(); c += step) {
        const float* const scale = weight.data() + c % size();
        const float* const shift = bias.empty() ? nullptr : bias.data() + c % size();
        if (kind == NormKind::kRms) {
          kernels::rms_norm(x.row(r) + c, scale, eps, step, y.row(r) + c);
        } else {
          kernels::layer_norm(x.row(r) + c, scale, shift, eps, step, y.row(r) + c);
        }
      }
    }
  });
}

}  // namespace nibble
