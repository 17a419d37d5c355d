#ifndef NIBBLE_MODELS_TRANSPOSED_CHECKPOINT_H_
#define NIBBLE_MODELS_TRANSPOSED_CHECKPOINT_H_

// GPT-2 stores the linears of its blocks as [in_features, out_features] (Conv1D of Transformers). Everything
// that reads a model here wants [out_features, in_features]: it reads through this view. Libraries that
// quantize such a layer store its codes as those of a linear, so codes need no view.

#include <memory>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/models/architecture.h"

namespace nibble {

// Float weights of the blocks' linears with rows and columns exchanged, copied when they are asked for; the
// checkpoint itself for architectures that have no such layers. The view of a view is what the file has,
// which is how a model is written again.
std::shared_ptr<const Checkpoint> transpose_linears(std::shared_ptr<const Checkpoint> checkpoint,
                                                    const DecoderSpec& spec, bool prefix_missing);

}  // namespace nibble

#endif  // NIBBLE_MODELS_TRANSPOSED_CHECKPOINT_H_
