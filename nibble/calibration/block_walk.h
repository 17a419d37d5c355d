#ifndef NIBBLE_CALIBRATION_BLOCK_WALK_H_
#define NIBBLE_CALIBRATION_BLOCK_WALK_H_

// Calibration data through a model, block by block: what each linear layer sees is gathered, the layer is
// handed over to be quantized, and the data goes on through what came back. One forward pass in all.
//
// Two streams of activations pass each block side by side where the target correction is wanted
// (docs/quantizers.md): that of the float model and that of the model whose earlier layers are quantized.

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nibble/base/dtype.h"
#include "nibble/base/thread_pool.h"
#include "nibble/calibration/dataset.h"
#include "nibble/linalg/gemm.h"
#include "nibble/models/model_source.h"

namespace nibble {

struct WalkOptions {
  linalg::Arithmetic arithmetic = linalg::Arithmetic::kF32;
  DType activations = DType::kBF16;  // of stored activations; kF32 with float32 arithmetic
  bool float_stream = true;          // for the target correction
  double alpha = 1.0;                // strength of the correction of a layer's own input
  double alpha_residual = 1.0;       // of the residual stream beside it
  bool token_weights = true;         // tokens weigh 1 / mean(stream^2) in o_proj and down_proj
  std::filesystem::path spill = {};  // activations go to files in this folder; empty: to memory
  size_t tokens_at_once = 2048;      // whole sequences, at least one
};

// What the linears that read one input have seen. Nothing of modules that are known already: gram.data() is
// null. An expert that no token was routed to has a gram of zeros, and 0 tokens.
struct InputStatistics {
  MatrixView<const float> gram = {};     // [in, in], symmetric: mean of x xᵀ over the tokens
  std::span<const float> mean_abs = {};  // [in]: mean |x|
  size_t tokens = 0;                     // of an expert: those that were routed to it
};

struct LinearTask {
  std::string module;
  MatrixView<const float> weight;  // [out, in]
  // D of the target W + D Hd⁻¹, [out, in]; empty without a float stream and for known modules.
  MatrixView<const float> shift;
  // Where the values go that the rest of the walk shall use: the dequantized weight. Holds `weight`.
  MatrixView<float> result;
};

// Called with all linears of one input, in the order of the forward pass.
using QuantizeLinears = std::function<Status(const InputStatistics&, std::span<LinearTask>)>;

struct WalkSteps {
  // True where every one of these modules was finished by an earlier run: nothing is gathered for them, but
  // `quantize` is called all the same, with empty statistics, and fills `result`. May be empty.
  std::function<bool(std::span<const std::string> modules)> known;
  QuantizeLinears quantize;
};

// How far the quantized stream is from the float one after a block: |q - f|^2 / |f|^2; 0 with one stream.
struct BlockReport {
  double stream_error = 0.0;
};

// Linears that read one input, and what they saw in the float model. A router of experts stands here by
// itself (with the gate of the shared expert), with all tokens, since what is folded into the norm before it
// must be folded into it too.
struct BlockInput {
  std::vector<std::string> modules;
  InputStatistics seen;
};

// Values in place of the file's, by tensor: "model.layers.0.self_attn.q_proj.weight" [out * in], "... .bias"
// [out], "model.layers.0.input_layernorm.weight" [n]; as the file would store them (Gemma's norms: w - 1).
// Scales of an activation ("transformer.h.0.mlp.act.scales" [n]) need not be in the file.
struct BlockReplacement {
  std::map<std::string, std::vector<float>> tensors;
};

struct WalkState;  // walk_state.h

// One thread at a time.
class BlockWalk {
 public:
  // Borrows all of them. The data has been checked against the vocabulary.
  BlockWalk(const ModelSource& source, const CalibrationData& data, const WalkOptions& options,
            ThreadPool& pool);
  ~BlockWalk();

  // The embeddings of all tokens. kInvalidArgument where there are none.
  Status start();
  // Walks block `layer`; blocks are walked in order. kDataLoss where an input is not finite.
  Expected<BlockReport> walk(size_t layer, const WalkSteps& steps);
  // The head as one more linear, after the last block: it reads the final norm's output. kUnsupported for a
  // head that shares the embedding's weight.
  Status walk_head(const WalkSteps& steps);
  // After the last block: what the head reads (final norm and project_out applied) at rows
  // [first_row, first_row + x.rows()) of the quantized stream. x: [rows, embedding_size].
  Status head_input(size_t first_row, MatrixView<float> x);

  // For methods that look at a whole block before they change it (AWQ), instead of walk(): gathers what all
  // inputs of the block see, then calls fn. The stream goes on with the file's weights. fn may call
  // block_difference(); where it is empty the stream goes on and nothing is gathered.
  Status gather_block(size_t layer, const std::function<Status(std::span<const BlockInput>)>& fn);
  // |y' - y| / |y| of the block's output over the first group of calibration tokens, in float32 arithmetic:
  // y with the file's values, y' with the replaced ones. That a fold changed nothing is seen here.
  // kInvalidArgument for a tensor that the block does not have, or of another size.
  Expected<double> block_difference(const BlockReplacement& replacement);

  // Rows of a residual stream as they are now: [count, hidden_size].
  Status stream(bool quantized, size_t first_row, MatrixView<float> values) const;

  // The state between two blocks.
  Status save(const std::filesystem::path& folder) const;
  Status load(const std::filesystem::path& folder);

 private:
  std::unique_ptr<WalkState> state_;
};

}  // namespace nibble

#endif  // NIBBLE_CALIBRATION_BLOCK_WALK_H_
