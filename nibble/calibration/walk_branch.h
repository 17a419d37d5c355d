#ifndef NIBBLE_CALIBRATION_WALK_BRANCH_H_
#define NIBBLE_CALIBRATION_WALK_BRANCH_H_

// One branch of a block, attention or MLP, with both streams: its linears are quantized in the order of the
// forward pass, each with what it sees behind those before it. Inside calibration/ only.

#include "nibble/calibration/gathered_input.h"
#include "nibble/calibration/walk_state.h"

namespace nibble {

struct Branch {
  const DecoderBlock& parts;  // of the block: norms, window
  const WalkSteps& steps;
  StreamPair& input;  // what its linears read: the residual streams, or in parallel blocks those before it
  bool attention = false;
  const Norm* in_norm = nullptr;
  const Norm* out_norm = nullptr;
  Distance* distance = nullptr;  // between the streams behind the branch; null: not wanted
};

// Rows of both streams, what a branch reads and what its result is added to. Any of the two views may be
// empty.
Status read_branch(WalkState& state, const Branch& branch, bool use_quantized, const TokenGroup& group,
                   MatrixView<float> residual, MatrixView<float> x);

// The linears that read the branch's input (q, k, v; gate and up), and in parallel blocks with one norm all
// of both branches.
Status first_linears(WalkState& state, const Branch& branch, LinearStack& first);

// The linear that writes into the residual stream (o_proj, down_proj), and the step of both streams to
// behind the branch. The branch's first linears are rows [begin, begin + count) of `first`.
// Latent attention has linears between them and attention, which are null elsewhere.
struct FirstRows {
  const LinearStack& stack;
  size_t begin = 0, count = 0;
  const LinearStack* q_b = nullptr;
  const LinearStack* kv_b = nullptr;

  AttentionLinears rows(bool use_quantized) const {
    const auto all = [&](const LinearStack* linear) {
      return linear == nullptr ? LinearRows() : linear->all(use_quantized);
    };
    return {stack.part(use_quantized, begin, count), all(q_b), all(kv_b)};
  }
};
Status last_linear(WalkState& state, const Branch& branch, const FirstRows& first, LinearStack& last);

// Latent attention from its first linears to its last.
Status walk_latent_attention(WalkState& state, const Branch& branch, const BlockModules& names);

// The MLP of a mixture of experts: each sees the tokens that the quantized stream's router sends to it, the
// shared one all of them.
Status walk_experts(WalkState& state, const Branch& branch, const BlockModules& names);

// Adds to the branch's distance, where that is wanted, what the streams' rows of a group differ in, as they
// are stored. scratch: [group.rows, hidden_size].
Status add_stream_distance(WalkState& state, const Branch& branch, const TokenGroup& group,
                           MatrixView<float> scratch);

}  // namespace nibble

#endif  // NIBBLE_CALIBRATION_WALK_BRANCH_H_
