#ifndef NIBBLE_QUANTIZERS_GPTQ_COMPAT_H_
#define NIBBLE_QUANTIZERS_GPTQ_COMPAT_H_

// GPTQ (arXiv:2210.17323) as IST's code, AutoGPTQ and GPTQModel compute it: blocks of 128 columns,
// grids from weights that lack the updates of the block in progress, GPTQModel's damping ladder and
// group-aware order. For reproducing their checkpoints.

#include "nibble/base/error.h"
#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"
#include "nibble/quantizers/gptq_settings.h"

namespace nibble {

// weight: [out_features, in_features]. hessian: [in_features, in_features], symmetric, any scale. One
// that cannot be factored however it is damped, that holds NaN (the loss is NaN then) or only zeros
// gives what round_to_nearest() gives (round_to_nearest.h). The same bytes for any number of threads.
Expected<SolvedWeight> quantize_gptq_compat(MatrixView<const float> weight, MatrixView<const float> hessian,
                                            const GptqSettings& settings, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_GPTQ_COMPAT_H_
