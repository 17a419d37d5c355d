#ifndef NIBBLE_QUANTIZERS_AWQ_SEARCH_H_
#define NIBBLE_QUANTIZERS_AWQ_SEARCH_H_

// AWQ (arXiv:2306.00978) as AutoAWQ computes it: per-channel scales that protect salient inputs, then
// clipping, then rounding in float16. Losses come from Gram matrices: mean((y - y')^2) of a linear
// layer is tr(dW G dWᵀ) / out_features, so that no forward pass is repeated. Both searches compute in
// float32, and always in 4 bits.

#include <span>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"
#include "nibble/quantization/quantized_weight.h"

namespace nibble {

struct AwqSettings {
  size_t group_size = 128;  // 0: all inputs
  bool zero_point = true;   // false: symmetric
  bool duo_scaling = true;
  size_t scale_grid = 20;   // ratios 0/20 ... 19/20
  size_t clip_grid = 20;    // clips 1 - i/20 ...
  double max_shrink = 0.5;  // ... down to this
};

struct AwqScales {
  std::vector<float> scales;  // [in_features]; weights are multiplied by them, inputs divided
  double ratio = 0.0;
  double loss = 0.0;           // mean squared change of the outputs, over all outputs of all linears alike
  double loss_unscaled = 0.0;  // the same for scales of 1 (plain rounding)
};

// Linears that read one input: weights [out_i, in_features] each. gram: [in_features, in_features],
// XᵀX / tokens; mean_abs: [in_features], mean |x|. The linears' rows count as one layer's, as for a
// mean over their concatenated outputs; importance (one for each weight; empty: 1) multiplies what the
// errors of a weight count. kInvalidArgument where every loss is NaN.
Expected<AwqScales> search_awq_scales(std::span<const MatrixView<const float>> weights,
                                      MatrixView<const float> gram, std::span<const float> mean_abs,
                                      const AwqSettings& settings, ThreadPool& pool,
                                      std::span<const double> importance = {});

// Clip limits [out_features, groups] of one (scaled) weight; gram of the scaled inputs. Per row and
// group the limit with the smallest e G_gg eᵀ, the largest one of equals.
std::vector<float> search_awq_clips(MatrixView<const float> weight, MatrixView<const float> gram,
                                    const AwqSettings& settings, ThreadPool& pool);
void apply_awq_clips(MatrixView<float> weight, std::span<const float> clips, size_t group_size,
                     ThreadPool& pool);

// AutoAWQ's pseudo_quantize_tensor in float16, rounding after every operation, and the codes its packer
// stores. weight: values representable in float16 are expected (they are rounded first).
QuantizedWeight quantize_awq(MatrixView<const float> weight, const AwqSettings& settings, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_AWQ_SEARCH_H_
