#ifndef NIBBLE_CALIBRATION_WALK_STATE_H_
#define NIBBLE_CALIBRATION_WALK_STATE_H_

// What the parts of a BlockWalk share: the data in groups of sequences, the streams, and how a block's
// layers without weights are run. Inside calibration/ only.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nibble/calibration/activation_store.h"
#include "nibble/calibration/block_walk.h"
#include "nibble/calibration/linear_stack.h"
#include "nibble/calibration/row_loops.h"
#include "nibble/models/block_steps.h"
#include "nibble/models/load_weights.h"

namespace nibble {

// Consecutive whole sequences that are worked on together.
struct TokenGroup {
  size_t first_row = 0, rows = 0;
  size_t first_sequence = 0, sequences = 0;
};

// The residual streams, or copies of them, a row per token. The float one is empty without a float stream.
struct StreamPair {
  ActivationStore quantized, floating;
};

// While fn of gather_block() runs.
struct GatheredBlock {
  size_t layer = 0;
  std::vector<float> before;  // the first group's stream before the block, [rows, hidden_size]
  std::vector<float> after;   // what the file's weights make of it; empty until it is asked for
};

struct WalkState {
  WalkState(const ModelSource& source_, const CalibrationData& data_, const WalkOptions& options_,
            ThreadPool& pool_);

  const ModelSource& source;
  const CalibrationData& data;
  const WalkOptions options;
  ThreadPool& pool;
  Arena arena;
  ExecutionContext context;
  std::vector<TokenGroup> groups;
  size_t num_tokens = 0;
  size_t longest = 0;  // sequence, tokens
  DecoderWeights frame;
  std::vector<std::unique_ptr<KvCache>> caches;  // one per sequence of a group, one layer
  StreamPair streams;
  ActivationStore inner_rows;  // inner_rows_of()
  std::optional<GatheredBlock> gathered;

  size_t hidden() const { return source.config.hidden_size; }
};

WeightLoader make_loader(const WalkState& state);

// Rows for the input of a branch's last linear, until the next call: fresh memory for each branch costs more
// than writing it.
Expected<ActivationStore*> inner_rows_of(WalkState& state, size_t width);
// In memory, or in a file of options.spill.
Expected<ActivationStore> make_store(const WalkState& state, size_t tokens, size_t width);

// fn(group) for all groups; what fn takes from the arena is given back after each. Stops for Ctrl-C.
Status for_groups(WalkState& state, const std::function<Status(const TokenGroup&)>& fn);

std::vector<SequenceChunk> chunks_of(const WalkState& state, const TokenGroup& group);

// y = x Wᵀ + b.
void apply(const LinearRows& linear, MatrixView<const float> x, MatrixView<float> y,
           linalg::Arithmetic arithmetic, ThreadPool& pool);

// What a branch reads of the stream: its norm, where that comes before the branch. x may be residual.
void branch_input(WalkState& state, const Norm* norm, MatrixView<const float> residual, MatrixView<float> x);

// residual + out(branch), or in(residual + branch) for models that normalise after the addition.
void finish_branch(WalkState& state, const Norm* in, const Norm* out, MatrixView<float> branch,
                   MatrixView<float> residual);

// The linears before attention: all that read the branch's input, and of latent attention those that read the
// short vectors (empty where there are none).
struct AttentionLinears {
  LinearRows first;
  LinearRows q_b = {}, kv_b = {};
};

// What q, or q_a, and kv_a of latent attention give, in the arena. x: [rows, hidden_size].
struct Latents {
  MatrixView<float> q;        // [rows, q_rank], normalised; without q_a the queries themselves
  MatrixView<float> kv;       // [rows, kv_rank], normalised
  MatrixView<float> rotated;  // [rows, rope_head_dim]: of the keys
};
Latents latents_of(WalkState& state, const DecoderBlock& parts, const LinearRows& first,
                   MatrixView<const float> x, linalg::Arithmetic arithmetic);

// From the input of a branch to that of its last linear: its linears and attention, or `first` and the MLP's
// activation. x: [rows, hidden_size]; inner: [rows, width of the last linear's input].
void attention_values(WalkState& state, const DecoderBlock& parts, const AttentionLinears& linears,
                      const TokenGroup& group, MatrixView<const float> x, MatrixView<float> inner,
                      linalg::Arithmetic arithmetic);
void mlp_values(WalkState& state, const LinearRows& first, MatrixView<const float> x, MatrixView<float> inner,
                linalg::Arithmetic arithmetic);

}  // namespace nibble

#endif  // NIBBLE_CALIBRATION_WALK_STATE_H_
