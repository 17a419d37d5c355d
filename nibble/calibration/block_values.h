#ifndef NIBBLE_CALIBRATION_BLOCK_VALUES_H_
#define NIBBLE_CALIBRATION_BLOCK_VALUES_H_

// One whole block in float32, with values of the files or in place of them, and its forward pass. Inside
// calibration/ only.

#include <functional>
#include <string>
#include <vector>

#include "nibble/calibration/walk_state.h"

namespace nibble {

// What linears read, in the order of the forward pass.
struct InputPoint {
  std::vector<std::string> modules;
  size_t width = 0;
};

struct BlockValues {
  DecoderBlock parts;  // norms, window
  LinearStack attention_in, attention_out;
  LinearStack q_b, kv_b;  // of latent attention; or empty
  LinearStack router;     // with the gate of the shared expert; empty without experts
  struct Mlp {
    LinearStack in, out;
    std::vector<float> activation_scales;  // of a replacement; or empty
  };
  std::vector<Mlp> mlps;  // one, or the experts
  std::vector<InputPoint> inputs;
};

// `replacement` may be null. kInvalidArgument for a tensor that the block does not have.
Expected<BlockValues> load_block(const WalkState& state, size_t layer, const BlockReplacement* replacement);

// Called with the number of an input and its values, [tokens, width]; of an expert those routed to it, and
// not at all where there are none.
using SeeInput = std::function<void(size_t input, MatrixView<const float> x)>;

// hidden: the group's rows of the residual stream, before and after. `see` may be empty.
void forward_block(WalkState& state, const BlockValues& block, const TokenGroup& group,
                   MatrixView<float> hidden, linalg::Arithmetic arithmetic, const SeeInput& see);

}  // namespace nibble

#endif  // NIBBLE_CALIBRATION_BLOCK_VALUES_H_
