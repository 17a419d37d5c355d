// Latent attention: between the linears that read the branch's input and attention stand those that read the
// short vectors behind their norms.

#include "nibble/calibration/walk_branch.h"

namespace nibble {
namespace {

// q_b or kv_b. `first` has been quantized.
Status latent_linear(WalkState& state, const Branch& branch, const LinearStack& first,
                     MatrixView<float> Latents::*input, LinearStack& linear) {
  if (is_known(branch.steps, linear)) return quantize_stack(state, linear, nullptr, branch.steps);
  const WalkOptions& options = state.options;
  GatheredInput seen(linear.in, options.float_stream && options.alpha > 0 ? linear.in : 0);
  const Status walked = for_groups(state, [&](const TokenGroup& group) -> Status {
    const MatrixView<float> x = state.arena.take_matrix(group.rows, first.in);
    NIBBLE_RETURN_IF_ERROR(read_branch(state, branch, true, group, {}, x));
    const Latents latents = latents_of(state, branch.parts, first.all(true), x, options.arithmetic);
    add_gram(seen, latents.*input, options.arithmetic, state.pool);
    add_magnitudes(latents.*input, seen.magnitudes, state.pool);
    seen.tokens += group.rows;
    if (seen.rows == 0) return {};
    NIBBLE_RETURN_IF_ERROR(read_branch(state, branch, false, group, {}, x));
    const Latents floats = latents_of(state, branch.parts, first.all(false), x, options.arithmetic);
    subtract_rows(latents.*input, floats.*input, state.pool);
    add_mismatch(seen, floats.*input, latents.*input, options.arithmetic, state.pool);
    return {};
  });
  if (!walked) return Failure(walked.error());
  return quantize_stack(state, linear, &seen, branch.steps);
}

}  // namespace

Status walk_latent_attention(WalkState& state, const Branch& branch, const BlockModules& names) {
  NIBBLE_TRY(LinearStack first, load_stack(state.source, {names.q, names.q_a, names.kv_a}));
  NIBBLE_RETURN_IF_ERROR(first_linears(state, branch, first));
  LinearStack q_b;
  if (!names.q_b.empty()) {
    NIBBLE_TRY(q_b, load_stack(state.source, {names.q_b}));
    NIBBLE_RETURN_IF_ERROR(latent_linear(state, branch, first, &Latents::q, q_b));
  }
  NIBBLE_TRY(LinearStack kv_b, load_stack(state.source, {names.kv_b}));
  NIBBLE_RETURN_IF_ERROR(latent_linear(state, branch, first, &Latents::kv, kv_b));
  NIBBLE_TRY(LinearStack last, load_stack(state.source, {names.o}));
  const FirstRows before = {first, 0, first.out, names.q_b.empty() ? nullptr : &q_b, &kv_b};
  return last_linear(state, branch, before, last);
}

}  // namespace nibble
