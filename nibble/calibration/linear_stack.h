#ifndef NIBBLE_CALIBRATION_LINEAR_STACK_H_
#define NIBBLE_CALIBRATION_LINEAR_STACK_H_

// Linears that read one input, their rows one after the other, so that one product serves all of them.

#include <string>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/base/matrix_view.h"
#include "nibble/models/model_source.h"

namespace nibble {

struct BlockReplacement;  // block_walk.h

struct LinearRows {
  MatrixView<const float> weight;  // [out, in]
  const float* bias = nullptr;     // [out], or null
};

struct LinearStack {
  std::vector<std::string> modules;
  std::vector<size_t> rows;      // of each module
  size_t in = 0, out = 0;        // out: of all modules
  std::vector<float> original;   // [out, in]
  std::vector<float> quantized;  // likewise; empty until the modules have been quantized
  std::vector<float> bias;       // [out], or empty

  LinearRows part(bool use_quantized, size_t first, size_t count) const {
    const std::vector<float>& values = use_quantized ? quantized : original;
    return {{values.data() + first * in, count, in}, bias.empty() ? nullptr : bias.data() + first};
  }
  LinearRows all(bool use_quantized) const { return part(use_quantized, 0, out); }
};

// Empty names are left out. Values of `replacement` (or null) go before those of the files; kInvalidArgument
// for one of the wrong size. Errors of the files are as ModelSource::weight tells them.
Expected<LinearStack> load_stack(const ModelSource& source, const std::vector<std::string>& modules,
                                 const BlockReplacement* replacement = nullptr);

// The replaced values of a tensor, or null; kInvalidArgument where there are not `size` of them.
Expected<const std::vector<float>*> find_replaced(const BlockReplacement* replacement,
                                                  const std::string& tensor, size_t size);

}  // namespace nibble

#endif  // NIBBLE_CALIBRATION_LINEAR_STACK_H_
