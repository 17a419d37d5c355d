// The experts of a block, one after the other. Rows are gathered from the streams by the router's choice, so
// that all experts together read each token experts_per_token times.

#include <algorithm>
#include <span>

#include "nibble/base/check.h"
#include "nibble/calibration/walk_branch.h"

namespace nibble {
namespace {

// Weights of the chosen experts, 0 for others: [tokens, experts], the shared one in the last column, the
// float stream's for its own rows.
struct Routing {
  size_t experts = 0;
  std::vector<float> quantized, floating;

  float weight(bool of_quantized, size_t row, size_t expert) const {
    return (of_quantized ? quantized : floating)[row * experts + expert];
  }
};

// What the experts' results add up to, for each stream: added to it when all experts are done, since they
// all read the stream before them.
struct ExpertWalk {
  WalkState& state;
  const Branch& branch;
  Routing routing;
  StreamPair sums;

  const ActivationStore& input(bool quantized) const {
    return quantized ? branch.input.quantized : branch.input.floating;
  }
};

using Rows = std::vector<size_t>;  // of the data, ascending

Rows routed(const ExpertWalk& walk, bool of_quantized, const TokenGroup& group, size_t expert) {
  Rows rows;
  for (size_t r = group.first_row; r < group.first_row + group.rows; ++r) {
    if (walk.routing.weight(of_quantized, r, expert) > 0.f) rows.push_back(r);
  }
  return rows;
}

// Runs fn(begin of a run in `rows`, its length) for neighbours in the data, so that they are read at once.
Status for_runs(const Rows& rows, const std::function<Status(size_t, size_t)>& fn) {
  for (size_t begin = 0; begin < rows.size();) {
    size_t end = begin + 1;
    while (end < rows.size() && rows[end] == rows[end - 1] + 1) ++end;
    NIBBLE_RETURN_IF_ERROR(fn(begin, end - begin));
    begin = end;
  }
  return {};
}

Status read_rows(const ActivationStore& from, const Rows& rows, MatrixView<float> values, ThreadPool& pool) {
  return for_runs(rows, [&](size_t begin, size_t count) {
    return from.read(rows[begin], values.rows(begin, count), pool);
  });
}

// What an expert reads.
Status read_input(const ExpertWalk& walk, bool quantized, const Rows& rows, MatrixView<float> x) {
  NIBBLE_RETURN_IF_ERROR(read_rows(walk.input(quantized), rows, x, walk.state.pool));
  branch_input(walk.state, walk.branch.in_norm, x, x);
  return {};
}

// Adds what an expert gives for rows of a stream, with the router's weights.
Status add_outputs(ExpertWalk& walk, bool quantized, size_t expert, const Rows& rows,
                   MatrixView<const float> outputs) {
  WalkState& state = walk.state;
  const Arena::Scope scope(state.arena);
  ActivationStore& sums = quantized ? walk.sums.quantized : walk.sums.floating;
  const MatrixView<float> sum = state.arena.take_matrix(rows.size(), state.hidden());
  NIBBLE_RETURN_IF_ERROR(read_rows(sums, rows, sum, state.pool));
  state.pool.parallel_for(rows.size(), 8, [&](size_t begin, size_t end, size_t) {
    for (size_t i = begin; i < end; ++i) {
      const float weight = walk.routing.weight(quantized, rows[i], expert);
      for (size_t c = 0; c < sum.cols(); ++c) sum.row(i)[c] += weight * outputs.row(i)[c];
    }
  });
  return for_runs(rows, [&](size_t begin, size_t count) {
    return sums.write(rows[begin], sum.rows(begin, count), state.pool);
  });
}

Status route(ExpertWalk& walk, const LinearStack& router, size_t experts) {
  WalkState& state = walk.state;
  walk.routing.experts = experts;
  walk.routing.quantized.resize(state.num_tokens * experts);
  if (state.options.float_stream) walk.routing.floating.resize(state.num_tokens * experts);
  return for_groups(state, [&](const TokenGroup& group) -> Status {
    const MatrixView<float> x = state.arena.take_matrix(group.rows, state.hidden());
    for (const bool quantized : {true, false}) {
      if (!quantized && !state.options.float_stream) continue;
      NIBBLE_RETURN_IF_ERROR(read_branch(state, walk.branch, quantized, group, {}, x));
      std::vector<float>& weights = quantized ? walk.routing.quantized : walk.routing.floating;
      const MatrixView<float> scores(weights.data() + group.first_row * experts, group.rows, experts);
      // Which expert is chosen hangs on small differences: never by rounded products.
      apply(router.all(false), x, scores.cols(0, router.out), linalg::Arithmetic::kF32, state.pool);
      route_tokens(state.source.spec, walk.branch.parts.router_correction, scores, state.context);
    }
    return {};
  });
}

Status expert_first(ExpertWalk& walk, size_t expert, LinearStack& first) {
  WalkState& state = walk.state;
  const WalkOptions& options = state.options;
  if (is_known(walk.branch.steps, first)) return quantize_stack(state, first, nullptr, walk.branch.steps);
  GatheredInput seen(first.in, options.float_stream && options.alpha > 0 ? first.in : 0);
  const Status walked = for_groups(state, [&](const TokenGroup& group) -> Status {
    const Rows rows = routed(walk, true, group, expert);
    if (rows.empty()) return {};
    const MatrixView<float> x = state.arena.take_matrix(rows.size(), first.in);
    NIBBLE_RETURN_IF_ERROR(read_input(walk, true, rows, x));
    add_gram(seen, x, options.arithmetic, state.pool);
    add_magnitudes(x, seen.magnitudes, state.pool);
    seen.tokens += rows.size();
    if (seen.rows == 0) return {};
    const MatrixView<float> difference = state.arena.take_matrix(rows.size(), first.in);
    NIBBLE_RETURN_IF_ERROR(read_input(walk, false, rows, difference));
    subtract_rows(x, difference, state.pool);
    add_mismatch(seen, difference, x, options.arithmetic, state.pool);
    return {};
  });
  if (!walked) return Failure(walked.error());
  return quantize_stack(state, first, &seen, walk.branch.steps);
}

MatrixView<float> take_rows(Arena& arena, MatrixView<const float> from, const Rows& all, const Rows& wanted) {
  const MatrixView<float> taken = arena.take_matrix(wanted.size(), from.cols());
  size_t at = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    while (all[at] != wanted[i]) ++at;
    std::copy_n(from.row(at), from.cols(), taken.row(i));
  }
  return taken;
}

struct Expert {
  size_t index = 0;
  const LinearStack& first;
  const LinearStack& last;
};

// The float expert on its stream's own tokens, which go on, and on those of the quantized stream, whose
// results are the target. `inner` holds the quantized stream's inner values at `rows`.
Status expert_float(ExpertWalk& walk, const Expert& expert, const TokenGroup& group, const Rows& rows,
                    MatrixView<const float> inner, GatheredInput* seen) {
  WalkState& state = walk.state;
  const linalg::Arithmetic arithmetic = state.options.arithmetic;
  const bool gather = seen != nullptr && seen->rows > 0;
  const Rows own = routed(walk, false, group, expert.index);
  Rows all = own;
  if (gather) {
    all.clear();
    std::set_union(own.begin(), own.end(), rows.begin(), rows.end(), std::back_inserter(all));
  }
  if (all.empty()) return {};
  const MatrixView<float> outputs = state.arena.take_matrix(all.size(), state.hidden());
  {
    const Arena::Scope scope(state.arena);
    const MatrixView<float> x = state.arena.take_matrix(all.size(), state.hidden());
    const MatrixView<float> float_inner = state.arena.take_matrix(all.size(), expert.last.in);
    NIBBLE_RETURN_IF_ERROR(read_input(walk, false, all, x));
    mlp_values(state, expert.first.all(false), x, float_inner, arithmetic);
    round_rows(state.options.activations, float_inner, state.pool);
    apply(expert.last.all(false), float_inner, outputs, arithmetic, state.pool);
  }
  if (!own.empty()) {
    NIBBLE_RETURN_IF_ERROR(
        add_outputs(walk, false, expert.index, own, take_rows(state.arena, outputs, all, own)));
  }
  if (!gather || rows.empty()) return {};
  // alpha W (x_float - x): the residual beside an expert is that of all experts of the token.
  const MatrixView<float> difference = take_rows(state.arena, outputs, all, rows);
  const MatrixView<float> ours = state.arena.take_matrix(rows.size(), state.hidden());
  apply(expert.last.all(false), inner, ours, arithmetic, state.pool);
  subtract_rows(ours, difference, state.pool);
  const auto alpha = static_cast<float>(state.options.alpha);
  for (size_t r = 0; r < difference.rows(); ++r) {
    for (float& v : difference.row_span(r)) v *= alpha;
  }
  add_mismatch(*seen, difference, inner, arithmetic, state.pool);
  return {};
}

Status expert_last(ExpertWalk& walk, size_t index, const LinearStack& first, LinearStack& last) {
  WalkState& state = walk.state;
  const linalg::Arithmetic arithmetic = state.options.arithmetic;
  const bool known = is_known(walk.branch.steps, last);
  const bool shifted = state.options.float_stream && state.options.alpha > 0 && !known;
  GatheredInput seen(known ? 0 : last.in, shifted ? last.out : 0);
  seen.mismatch = MismatchKind::kShift;
  size_t count = 0;
  for (const TokenGroup& group : state.groups) count += routed(walk, true, group, index).size();
  NIBBLE_TRY(ActivationStore inner_store, make_store(state, count, last.in));
  size_t at = 0;
  const Status walked = for_groups(state, [&](const TokenGroup& group) -> Status {
    const Rows rows = routed(walk, true, group, index);
    const MatrixView<float> inner = state.arena.take_matrix(rows.size(), last.in);
    if (!rows.empty()) {
      const Arena::Scope scope(state.arena);
      const MatrixView<float> x = state.arena.take_matrix(rows.size(), first.in);
      NIBBLE_RETURN_IF_ERROR(read_input(walk, true, rows, x));
      mlp_values(state, first.all(true), x, inner, arithmetic);
      round_rows(state.options.activations, inner, state.pool);
      NIBBLE_RETURN_IF_ERROR(inner_store.write(at, inner, state.pool));
      at += rows.size();
    }
    if (!known && !rows.empty()) {
      add_magnitudes(inner, seen.magnitudes, state.pool);
      add_gram(seen, inner, arithmetic, state.pool);
      seen.tokens += rows.size();
    }
    if (!state.options.float_stream) return {};
    return expert_float(walk, {index, first, last}, group, rows, inner, known ? nullptr : &seen);
  });
  if (!walked) return Failure(walked.error());
  NIBBLE_RETURN_IF_ERROR(quantize_stack(state, last, known ? nullptr : &seen, walk.branch.steps));
  at = 0;
  return for_groups(state, [&](const TokenGroup& group) -> Status {
    const Rows rows = routed(walk, true, group, index);
    if (rows.empty()) return {};
    const MatrixView<float> inner = state.arena.take_matrix(rows.size(), last.in);
    const MatrixView<float> outputs = state.arena.take_matrix(rows.size(), state.hidden());
    NIBBLE_RETURN_IF_ERROR(inner_store.read(at, inner, state.pool));
    at += rows.size();
    apply(last.all(true), inner, outputs, arithmetic, state.pool);
    return add_outputs(walk, true, index, rows, outputs);
  });
}

Status add_sums(ExpertWalk& walk) {
  WalkState& state = walk.state;
  const Branch& branch = walk.branch;
  return for_groups(state, [&](const TokenGroup& group) -> Status {
    const MatrixView<float> residual = state.arena.take_matrix(group.rows, state.hidden());
    const MatrixView<float> sum = state.arena.take_matrix(group.rows, state.hidden());
    if (state.options.float_stream) {
      NIBBLE_RETURN_IF_ERROR(state.streams.floating.read(group.first_row, residual, state.pool));
      NIBBLE_RETURN_IF_ERROR(walk.sums.floating.read(group.first_row, sum, state.pool));
      finish_branch(state, branch.in_norm, branch.out_norm, sum, residual);
      NIBBLE_RETURN_IF_ERROR(state.streams.floating.write(group.first_row, residual, state.pool));
    }
    NIBBLE_RETURN_IF_ERROR(state.streams.quantized.read(group.first_row, residual, state.pool));
    NIBBLE_RETURN_IF_ERROR(walk.sums.quantized.read(group.first_row, sum, state.pool));
    finish_branch(state, branch.in_norm, branch.out_norm, sum, residual);
    NIBBLE_RETURN_IF_ERROR(state.streams.quantized.write(group.first_row, residual, state.pool));
    return add_stream_distance(state, branch, group, residual);
  });
}

}  // namespace

Status walk_experts(WalkState& state, const Branch& branch, const BlockModules& names) {
  ExpertWalk walk = {state, branch, {}, {}};
  NIBBLE_TRY(const LinearStack router, load_stack(state.source, {names.router, names.shared_gate}));
  NIBBLE_RETURN_IF_ERROR(route(walk, router, names.mlps.size()));
  NIBBLE_TRY(walk.sums.quantized, make_store(state, state.num_tokens, state.hidden()));
  if (state.options.float_stream) {
    NIBBLE_TRY(walk.sums.floating, make_store(state, state.num_tokens, state.hidden()));
  }
  for (size_t e = 0; e < names.mlps.size(); ++e) {
    const MlpModules& modules = names.mlps[e];
    NIBBLE_TRY(LinearStack first, load_stack(state.source, {modules.gate_up, modules.gate, modules.up}));
    NIBBLE_RETURN_IF_ERROR(expert_first(walk, e, first));
    NIBBLE_TRY(LinearStack last, load_stack(state.source, {modules.down}));
    NIBBLE_RETURN_IF_ERROR(expert_last(walk, e, first, last));
  }
  return add_sums(walk);
}

}  // namespace nibble
