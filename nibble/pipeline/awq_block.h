#ifndef NIBBLE_PIPELINE_AWQ_BLOCK_H_
#define NIBBLE_PIPELINE_AWQ_BLOCK_H_

// AWQ for one block, as AutoAWQ does it: search a scale for each group of models/scale_groups.h by the
// original weights, fold all of them, search clips by what came out, round.
//
// What is not as in AutoAWQ:
// * The loss of a scale is the change of the outputs of the group's linears, relative to these outputs, by
//   the Gram matrix of their input. AutoAWQ runs the attention or the MLP again for each of 20 scales, so
//   that it also sees the softmax.
// * The clips are judged by all tokens, not by 512 of them.
// * Scales are folded in float32, and the fold is proved before anything is rounded: the block must
//   compute what it computed before. Rounding to float16 comes once, after the last fold; AutoAWQ
//   rounds after each. A norm is rounded to the file's dtype at once, and its linears take the scale
//   that the rounded norm has.
// * Folds that would change the model (v -> o where attention clamps v, the last rows of a fused weight
//   that are not v) are left out. A router that reads a scaled norm is divided too.

#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "nibble/pipeline/folded_block.h"
#include "nibble/quantization/quantized_weight.h"
#include "nibble/quantizers/awq_search.h"

namespace nibble {

// What linears that read one input have seen in the float model; all linears of the block that read it.
struct AwqInput {
  std::vector<std::string> modules;
  MatrixView<const float> gram;     // [in, in], symmetric: mean of x xᵀ over the tokens
  std::span<const float> mean_abs;  // [in]: mean |x|
  size_t tokens = 0;                // 0: an expert that no token was routed to; gram may be empty
};

struct AwqBlockOptions {
  AwqSettings search = {};
  std::set<std::string> skipped = {};  // linears that stay in floating point (modules_to_not_convert)
};

// One linear, for the log.
struct AwqModule {
  std::string module;
  size_t out_features = 0;
  size_t in_features = 0;
  size_t tokens = 0;            // that its input was seen with; 0: rounded without any search
  bool scaled = false;          // belongs to a group of scales; else the next three are 0
  double ratio = 0.0;           // exponent of mean |x| in the group's scales
  double loss = 0.0;            // of the group: mean of |(Q - W) x|² / |W x|², before clipping
  double loss_unscaled = 0.0;   // the same without scales
  double relative_error = 0.0;  // |(Q - W) x|² / |W x|² of this linear in the end; 0 without tokens
};

struct AwqBlockResult {
  std::map<std::string, QuantizedWeight> weights;  // of every linear but the skipped ones
  // Float tensors that replace those of the file: norms, biases, routers, weights of skipped linears.
  // To be written in the file's dtype, which can hold them; norms are values of that dtype already.
  FloatTensors folded;
  std::vector<AwqModule> modules;  // in the order of the inputs
  double proof = 0.0;              // relative difference of the block's output after folding
};

// Relative difference |y' - y| / |y| of the block's output between the weights of the file and those
// with `changed` in place of the file's tensors, in float32 arithmetic.
using ProveFold = std::function<Expected<double>(const FloatTensors& changed)>;

// Block `layer` of a float model. inputs: every linear of the block once. Not called where no scale was
// found: prove. kDataLoss where folding changed what the block computes (the message names the group)
// or where a folded tensor overflows the dtype that it is stored in.
Expected<AwqBlockResult> quantize_awq_block(const ModelSource& source, size_t layer,
                                            std::span<const AwqInput> inputs, const AwqBlockOptions& options,
                                            const ProveFold& prove, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_AWQ_BLOCK_H_
