#include "nibble/calibration/walk_branch.h"

namespace nibble {

Status read_branch(WalkState& state, const Branch& branch, bool use_quantized, const TokenGroup& group,
                   MatrixView<float> residual, MatrixView<float> x) {
  const auto of = [&](const StreamPair& pair) -> const ActivationStore& {
    return use_quantized ? pair.quantized : pair.floating;
  };
  const bool same = &branch.input == &state.streams;
  if (residual.data() != nullptr) {
    NIBBLE_RETURN_IF_ERROR(of(state.streams).read(group.first_row, residual, state.pool));
    if (same && x.data() != nullptr) branch_input(state, branch.in_norm, residual, x);
  }
  if (x.data() != nullptr && (!same || residual.data() == nullptr)) {
    NIBBLE_RETURN_IF_ERROR(of(branch.input).read(group.first_row, x, state.pool));
    branch_input(state, branch.in_norm, x, x);
  }
  return {};
}

Status first_linears(WalkState& state, const Branch& branch, LinearStack& first) {
  if (is_known(branch.steps, first)) return quantize_stack(state, first, nullptr, branch.steps);
  const WalkOptions& options = state.options;
  GatheredInput seen(first.in, options.float_stream && options.alpha > 0 ? first.in : 0);
  const Status walked = for_groups(state, [&](const TokenGroup& group) -> Status {
    const MatrixView<float> x = state.arena.take_matrix(group.rows, first.in);
    NIBBLE_RETURN_IF_ERROR(read_branch(state, branch, true, group, {}, x));
    add_gram(seen, x, options.arithmetic, state.pool);
    add_magnitudes(x, seen.magnitudes, state.pool);
    seen.tokens += group.rows;
    if (seen.rows == 0) return {};
    const MatrixView<float> difference = state.arena.take_matrix(group.rows, first.in);
    NIBBLE_RETURN_IF_ERROR(read_branch(state, branch, false, group, {}, difference));
    subtract_rows(x, difference, state.pool);
    add_mismatch(seen, difference, x, options.arithmetic, state.pool);
    return {};
  });
  if (!walked) return Failure(walked.error());
  return quantize_stack(state, first, &seen, branch.steps);
}

namespace {

// Rounded as they are stored, in both streams, so that rounding does not part them.
void inner_values(WalkState& state, const Branch& branch, const AttentionLinears& linears,
                  const TokenGroup& group, MatrixView<const float> x, MatrixView<float> inner) {
  if (branch.attention) {
    attention_values(state, branch.parts, linears, group, x, inner, state.options.arithmetic);
  } else {
    mlp_values(state, linears.first, x, inner, state.options.arithmetic);
  }
  round_rows(state.options.activations, inner, state.pool);
}

// What one group's rows are in a pass over the last linear.
struct LastRows {
  MatrixView<float> residual, x;  // of the quantized stream; x is free once `inner` is there
  MatrixView<float> inner;        // input of the last linear
};

// error := what the last linear's output should be: alpha W x_float + alpha_residual (r_float - r). What it
// is for the quantized stream's input, alpha W x, is taken off the sum of products, as alpha W times the Gram
// matrix (gathered_input.cc): one product for each layer and not for each token. branch_out: W x_float +
// bias; stream: r_float.
void output_target(WalkState& state, const Branch& branch, const float* bias,
                   MatrixView<const float> residual, MatrixView<const float> branch_out,
                   MatrixView<const float> stream, MatrixView<float> error) {
  // Behind a norm of the branch's output the sum with the residual is not linear in the weight.
  const bool with_residual = branch.out_norm == nullptr;
  const auto alpha = static_cast<float>(state.options.alpha);
  const auto strength = static_cast<float>(
      with_residual ? state.options.alpha_residual / static_cast<double>(state.source.spec.residual_scale)
                    : 0.0);
  state.pool.parallel_for(error.rows(), 8, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      float* const e = error.row(r);
      const float* const b = branch_out.row(r);
      const float* const f = stream.row(r);
      const float* const q = residual.row(r);
      for (size_t c = 0; c < error.cols(); ++c) e[c] = alpha * b[c] + strength * (f[c] - q[c]);
      if (bias == nullptr) continue;
      for (size_t c = 0; c < error.cols(); ++c) e[c] -= alpha * bias[c];
    }
  });
}

// The float stream's step to behind the branch; with `seen` the mismatch of the outputs is added to it, and
// rows.inner and rows.x are weighted or overwritten.
Status step_float(WalkState& state, const Branch& branch, const FirstRows& first, const LinearStack& last,
                  const TokenGroup& group, const LastRows& rows, GatheredInput* seen) {
  const size_t hidden = state.hidden();
  const MatrixView<float> stream = state.arena.take_matrix(group.rows, hidden);
  const MatrixView<float> branch_out = state.arena.take_matrix(group.rows, hidden);
  {
    const Arena::Scope scope(state.arena);
    const MatrixView<float> inner = state.arena.take_matrix(group.rows, last.in);
    NIBBLE_RETURN_IF_ERROR(read_branch(state, branch, false, group, stream, rows.x));
    inner_values(state, branch, first.rows(false), group, rows.x, inner);
    apply(last.all(false), inner, branch_out, state.options.arithmetic, state.pool);
  }
  const bool gather = seen != nullptr && seen->rows > 0;
  if (gather) output_target(state, branch, last.all(false).bias, rows.residual, branch_out, stream, rows.x);
  finish_branch(state, branch.in_norm, branch.out_norm, branch_out, stream);
  NIBBLE_RETURN_IF_ERROR(state.streams.floating.write(group.first_row, stream, state.pool));
  if (!gather) return {};
  const bool weigh = state.options.token_weights && branch.out_norm == nullptr;
  if (weigh) weigh_rows(stream, rows.inner, rows.x, state.pool);
  add_mismatch(*seen, rows.x, rows.inner, state.options.arithmetic, state.pool);
  return {};
}

}  // namespace

Status add_stream_distance(WalkState& state, const Branch& branch, const TokenGroup& group,
                           MatrixView<float> scratch) {
  if (branch.distance == nullptr) return {};
  const MatrixView<float> stream = state.arena.take_matrix(group.rows, state.hidden());
  NIBBLE_RETURN_IF_ERROR(state.streams.quantized.read(group.first_row, scratch, state.pool));
  NIBBLE_RETURN_IF_ERROR(state.streams.floating.read(group.first_row, stream, state.pool));
  add_distance(scratch, stream, *branch.distance, state.pool);
  return {};
}

// The target is what the float stream is after the addition, so that the layer repairs what earlier ones
// left.
Status last_linear(WalkState& state, const Branch& branch, const FirstRows& first, LinearStack& last) {
  const size_t hidden = state.hidden();
  const bool known = is_known(branch.steps, last);
  const size_t width = known ? 0 : last.in;
  GatheredInput seen(width, state.options.float_stream && !known ? last.out : 0);
  seen.mismatch = MismatchKind::kTarget;
  NIBBLE_TRY(ActivationStore* const inner_rows, inner_rows_of(state, last.in));
  const Status walked = for_groups(state, [&](const TokenGroup& group) -> Status {
    const LastRows rows = {state.arena.take_matrix(group.rows, hidden),
                           state.arena.take_matrix(group.rows, hidden),
                           state.arena.take_matrix(group.rows, last.in)};
    NIBBLE_RETURN_IF_ERROR(read_branch(state, branch, true, group, rows.residual, rows.x));
    inner_values(state, branch, first.rows(true), group, rows.x, rows.inner);
    NIBBLE_RETURN_IF_ERROR(inner_rows->write(group.first_row, rows.inner, state.pool));
    if (!known) {
      add_magnitudes(rows.inner, seen.magnitudes, state.pool);
      seen.tokens += group.rows;
    }
    if (state.options.float_stream) {
      NIBBLE_RETURN_IF_ERROR(step_float(state, branch, first, last, group, rows, known ? nullptr : &seen));
    }
    if (!known) add_gram(seen, rows.inner, state.options.arithmetic, state.pool);
    return {};
  });
  if (!walked) return Failure(walked.error());
  NIBBLE_RETURN_IF_ERROR(quantize_stack(state, last, known ? nullptr : &seen, branch.steps));
  return for_groups(state, [&](const TokenGroup& group) -> Status {
    const MatrixView<float> residual = state.arena.take_matrix(group.rows, hidden);
    const MatrixView<float> inner = state.arena.take_matrix(group.rows, last.in);
    const MatrixView<float> branch_out = state.arena.take_matrix(group.rows, hidden);
    NIBBLE_RETURN_IF_ERROR(state.streams.quantized.read(group.first_row, residual, state.pool));
    NIBBLE_RETURN_IF_ERROR(inner_rows->read(group.first_row, inner, state.pool));
    apply(last.all(true), inner, branch_out, state.options.arithmetic, state.pool);
    finish_branch(state, branch.in_norm, branch.out_norm, branch_out, residual);
    NIBBLE_RETURN_IF_ERROR(state.streams.quantized.write(group.first_row, residual, state.pool));
    return add_stream_distance(state, branch, group, residual);
  });
}

}  // namespace nibble
