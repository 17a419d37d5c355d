// What comes after the last block: what the head reads, and the head as one more linear.

#include "nibble/calibration/gathered_input.h"
#include "nibble/calibration/walk_state.h"

namespace nibble {
namespace {

std::string head_module(const ModelSource& source) {
  return name_in_file(source.spec, source.spec.names.head, source.prefix_missing);
}

// What the head reads: final norm and project_out of the stream. x: [rows, hidden_size], overwritten.
MatrixView<float> to_head_input(WalkState& state, MatrixView<float> x) {
  if (state.frame.final_norm != nullptr) state.frame.final_norm->forward(x, x, state.context);
  if (state.frame.project_out == nullptr) return x;
  const MatrixView<float> projected = state.arena.take_matrix(x.rows(), state.source.spec.embedding_size);
  state.frame.project_out->forward(x, projected, state.context);
  return projected;
}

}  // namespace

Status BlockWalk::walk_head(const WalkSteps& steps) {
  WalkState& state = *state_;
  if (state.source.config.tie_word_embeddings) {
    return fail(ErrorCode::kUnsupported, "the head shares the embedding's weight, which stays float")
        .at(head_module(state.source))
        .with_fix("Leave --lm-head out: no reader of these formats takes codes for a tied head.");
  }
  NIBBLE_TRY(LinearStack head, load_stack(state.source, {head_module(state.source)}));
  const WalkOptions& options = state.options;
  std::optional<GatheredInput> seen;
  if (!is_known(steps, head)) {
    seen.emplace(head.in, options.float_stream && options.alpha > 0 ? head.in : 0);
    const Status walked = for_groups(state, [&](const TokenGroup& group) -> Status {
      const MatrixView<float> rows = state.arena.take_matrix(group.rows, state.hidden());
      NIBBLE_RETURN_IF_ERROR(state.streams.quantized.read(group.first_row, rows, state.pool));
      const MatrixView<float> x = to_head_input(state, rows);
      add_gram(*seen, x, options.arithmetic, state.pool);
      add_magnitudes(x, seen->magnitudes, state.pool);
      seen->tokens += group.rows;
      if (seen->rows == 0) return {};
      const MatrixView<float> float_rows = state.arena.take_matrix(group.rows, state.hidden());
      NIBBLE_RETURN_IF_ERROR(state.streams.floating.read(group.first_row, float_rows, state.pool));
      const MatrixView<float> difference = to_head_input(state, float_rows);
      subtract_rows(x, difference, state.pool);
      add_mismatch(*seen, difference, x, options.arithmetic, state.pool);
      return {};
    });
    if (!walked) return Failure(walked.error());
  }
  return quantize_stack(state, head, seen ? &*seen : nullptr, steps);
}

Status BlockWalk::head_input(size_t first_row, MatrixView<float> x) {
  WalkState& state = *state_;
  const Arena::Scope scope(state.arena);
  const MatrixView<float> rows = state.arena.take_matrix(x.rows(), state.hidden());
  NIBBLE_RETURN_IF_ERROR(state.streams.quantized.read(first_row, rows, state.pool));
  copy_rows(to_head_input(state, rows), x, state.pool);
  return {};
}

}  // namespace nibble
