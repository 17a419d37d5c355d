#ifndef NIBBLE_QUANTIZERS_ROUND_TO_NEAREST_H_
#define NIBBLE_QUANTIZERS_ROUND_TO_NEAREST_H_

// Quantization without a Hessian: find_grid() and nearest_code() on natural groups. Of the settings, bits,
// group_size, sym, mse and zero_may_be_0 count; the loss is left at 0.

#include <cstdint>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/base/matrix_view.h"
#include "nibble/base/tensor.h"
#include "nibble/base/thread_pool.h"
#include "nibble/quantizers/gptq_settings.h"

namespace nibble {

// weight: [out_features, in_features]. The same bytes for any number of threads.
Expected<SolvedWeight> round_to_nearest(MatrixView<const float> weight, const GptqSettings& settings,
                                        ThreadPool& pool);

// Of a weight as it is stored: F16, BF16 or F32 [out_features, in_features], of which no more than a row for
// each thread becomes float. kDataLoss for NaN and infinities. codes: memory to use again, from an earlier
// result: fresh pages for them cost a tenth of the time.
Expected<SolvedWeight> round_to_nearest(const Tensor& weight, const GptqSettings& settings, ThreadPool& pool,
                                        std::vector<uint8_t> codes = {});

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_ROUND_TO_NEAREST_H_
