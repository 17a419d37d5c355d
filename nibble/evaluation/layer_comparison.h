#ifndef NIBBLE_EVALUATION_LAYER_COMPARISON_H_
#define NIBBLE_EVALUATION_LAYER_COMPARISON_H_

// Where a model leaves its reference: what each block and each linear makes of the same tokens in both.

#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/base/thread_pool.h"
#include "nibble/evaluation/text_windows.h"
#include "nibble/models/causal_lm.h"

namespace nibble {

// Errors are relative: |candidate - reference| / |reference| over all tokens (Frobenius norms).
struct LinearDifference {
  std::string module;        // "model.layers.3.mlp.down_proj"
  double input_error = 0.0;  // what reached it was off by this already
  double error = 0.0;        // of its output
  // What it added by itself: sqrt(error^2 - input_error^2), 0 where the error shrank.
  double added() const;
};

struct LayerDifference {
  size_t layer = 0;
  double relative_error = 0.0;  // of what the block hands on
  double cosine = 1.0;
  std::vector<LinearDifference> linears;  // in the order they run; none of experts

  const LinearDifference* worst() const;  // that added most; null without linears
};

struct LayerComparison {
  std::vector<LayerDifference> layers;
  // The first linear that adds 5 times what those of its name usually add (their median), twice what all
  // usually add, and more than 0.1; empty where none stands out.
  std::string damaged;
};

// tokens: how many of the text are looked at, from its start.
// Inputs and outputs that AWQ has rescaled channel by channel are compared after the best scale for each
// channel, which hides no other damage. kInvalidArgument where the models have different blocks.
Expected<LayerComparison> compare_layers(const CausalLM& reference, const CausalLM& candidate,
                                         const TextWindows& text, size_t tokens, ThreadPool& pool);

Json to_json(const LayerComparison& comparison);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_LAYER_COMPARISON_H_
