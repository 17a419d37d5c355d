#ifndef NIBBLE_PIPELINE_FOLDED_BLOCK_H_
#define NIBBLE_PIPELINE_FOLDED_BLOCK_H_

// The float tensors of one block while AWQ's scales move through them.

#include <map>
#include <span>
#include <string>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"
#include "nibble/models/model_source.h"
#include "nibble/models/scale_groups.h"

namespace nibble {

// By full name ("model.layers.0.input_layernorm.weight"), values as the file stores them (Gemma: w - 1).
using FloatTensors = std::map<std::string, std::vector<float>>;

// Tensors are read when they are first asked for. One thread at a time.
class FoldedBlock {
 public:
  // Borrows the source.
  explicit FoldedBlock(const ModelSource& source) : source_(source) {}

  // A linear's weight as it is now: [out_features, in_features]. Valid until it is folded or taken.
  Expected<MatrixView<const float>> weight(const std::string& module);

  // Divides what writes the group's channels by `scales` (an activation gets them as its own), multiplies the
  // columns of what reads them, and returns the scales that it took: [in_features]. They differ from `scales`
  // where a norm's divided weight is no value of the file's dtype: it is rounded first, and the scale is what
  // it was really divided by, so that a norm in bfloat16 (eight bits; of w - 1 for Gemma) costs nothing. 1
  // where the norm's weight would become 0 or infinite.
  Expected<std::vector<float>> fold(const ScaleGroup& group, std::vector<float> scales, ThreadPool& pool);

  // Everything that fold() has changed so far.
  const FloatTensors& changed() const { return changed_; }
  FloatTensors take_changed() && { return std::move(changed_); }

 private:
  Expected<std::vector<float>*> change(const std::string& module, std::string_view suffix);
  void scale_activation(const std::string& activation, std::span<const float> scales);
  Status divide_norm(const std::string& norm, std::vector<float>& scales);
  Status divide_rows(const std::string& producer, std::span<const float> scales, ThreadPool& pool);
  Status multiply_columns(const std::string& module, std::span<const float> scales, ThreadPool& pool);

  const ModelSource& source_;
  FloatTensors unchanged_, changed_;
};

// To the nearest value of the dtype of a file's floats (F16, BF16; others: itself).
float rounded_to(DType dtype, float value);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_FOLDED_BLOCK_H_
