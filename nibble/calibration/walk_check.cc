// What comes after the last block: the head as one more linear, and the comparison of both streams by the
// tokens that they predict.

#include <algorithm>
#include <cmath>

#include "nibble/calibration/gathered_input.h"
#include "nibble/calibration/walk_state.h"
#include "nibble/kernels/elementwise.h"

namespace nibble {
namespace {

// Two rows of logits each; a large vocabulary makes them heavy.
constexpr size_t kRowsAtOnce = 64;

std::string head_module(const ModelSource& source) {
  return name_in_file(source.spec, source.spec.names.head, source.prefix_missing);
}

// What the head reads: final norm and project_out of the stream. x: [rows, hidden_size], overwritten.
MatrixView<float> head_input(WalkState& state, MatrixView<float> x) {
  if (state.frame.final_norm != nullptr) state.frame.final_norm->forward(x, x, state.context);
  if (state.frame.project_out == nullptr) return x;
  const MatrixView<float> projected = state.arena.take_matrix(x.rows(), state.source.spec.embedding_size);
  state.frame.project_out->forward(x, projected, state.context);
  return projected;
}

Status load_head(WalkState& state) {
  if (state.frame.head != nullptr) return {};
  WeightLoader loader = make_loader(state);
  if (!state.source.config.tie_word_embeddings) {
    return loader.linears({{head_module(state.source), &state.frame.head}});
  }
  NIBBLE_TRY(state.frame.head, loader.tied_head(state.frame.embedding));
  return {};
}

// Of one token, from both rows of logits.
struct TokenCheck {
  double kl = 0.0;
  double nll_float = 0.0, nll_quantized = 0.0;  // of the token that follows, nats
  bool same_top = false;
};

struct Softmax {
  explicit Softmax(std::span<const float> logits)
      : largest(std::max_element(logits.begin(), logits.end()) - logits.begin()) {
    const double top = logits[static_cast<size_t>(largest)];
    double sum = 0.0;
    for (const float v : logits) sum += std::exp(v - top);
    log_sum = top + std::log(sum);
  }

  ptrdiff_t largest;
  double log_sum = 0.0;
};

TokenCheck check_token(std::span<const float> p, std::span<const float> q, size_t next) {
  const Softmax of_p(p);
  const Softmax of_q(q);
  double kl = 0.0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double log_p = p[i] - of_p.log_sum;
    kl += std::exp(log_p) * (log_p - (q[i] - of_q.log_sum));
  }
  return {kl, of_p.log_sum - p[next], of_q.log_sum - q[next], of_p.largest == of_q.largest};
}

// Logits of one stream's rows [first, first + logits.rows()).
Status stream_logits(WalkState& state, bool quantized, size_t first, MatrixView<float> logits) {
  const Arena::Scope scope(state.arena);
  const MatrixView<float> rows = state.arena.take_matrix(logits.rows(), state.hidden());
  const TokenRows& stream = quantized ? state.streams.quantized : state.streams.floating;
  NIBBLE_RETURN_IF_ERROR(stream.store.read(first - stream.first_row, rows, state.pool));
  const MatrixView<float> x = head_input(state, rows);
  if (quantized && state.head) {
    apply(state.head->all(true), x, logits, linalg::Arithmetic::kF32, state.pool);
  } else {
    state.frame.head->forward(x, logits, state.context);
  }
  if (const float cap = state.source.spec.final_soft_cap; cap > 0.f) {
    state.pool.parallel_for(logits.rows(), 1, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        kernels::soft_cap(logits.row(r), cap, logits.cols(), logits.row(r));
      }
    });
  }
  return {};
}

// The tokens of one sequence that have a next one; `first_row` is the sequence's.
Status check_sequence(WalkState& state, std::span<const int32_t> tokens, size_t first_row,
                      std::vector<TokenCheck>& checks) {
  const size_t vocab_size = state.source.config.vocab_size;
  for (size_t begin = 0; begin + 1 < tokens.size(); begin += kRowsAtOnce) {
    const Arena::Scope scope(state.arena);
    const size_t rows = std::min(kRowsAtOnce, tokens.size() - 1 - begin);
    const MatrixView<float> p = state.arena.take_matrix(rows, vocab_size);
    const MatrixView<float> q = state.arena.take_matrix(rows, vocab_size);
    NIBBLE_RETURN_IF_ERROR(stream_logits(state, false, first_row + begin, p));
    NIBBLE_RETURN_IF_ERROR(stream_logits(state, true, first_row + begin, q));
    const size_t done = checks.size();
    checks.resize(done + rows);
    state.pool.parallel_for(rows, 1, [&](size_t task_begin, size_t task_end, size_t) {
      for (size_t r = task_begin; r < task_end; ++r) {
        const auto next = static_cast<size_t>(tokens[begin + r + 1]);
        checks[done + r] = check_token(p.row_span(r), q.row_span(r), next);
      }
    });
  }
  return {};
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
      if (group.held_out) return {};
      const MatrixView<float> rows = state.arena.take_matrix(group.rows, state.hidden());
      NIBBLE_RETURN_IF_ERROR(state.streams.quantized.read(group, rows, state.pool));
      const MatrixView<float> x = head_input(state, rows);
      add_gram(*seen, x, options.arithmetic, state.pool);
      add_magnitudes(x, seen->magnitudes, state.pool);
      seen->tokens += group.rows;
      if (seen->rows == 0) return {};
      const MatrixView<float> float_rows = state.arena.take_matrix(group.rows, state.hidden());
      NIBBLE_RETURN_IF_ERROR(state.streams.floating.read(group, float_rows, state.pool));
      const MatrixView<float> difference = head_input(state, float_rows);
      subtract_rows(x, difference, state.pool);
      add_mismatch(*seen, difference, x, options.arithmetic, state.pool);
      return {};
    });
    if (!walked) return Failure(walked.error());
  }
  NIBBLE_RETURN_IF_ERROR(quantize_stack(state, head, seen ? &*seen : nullptr, steps));
  if (state.options.held_out == 0) return {};
  head.original = {};  // check() takes the float head from the file
  state.head = std::move(head);
  return {};
}

Status BlockWalk::logits(size_t first_row, MatrixView<float> logits) {
  NIBBLE_RETURN_IF_ERROR(load_head(*state_));
  return stream_logits(*state_, true, first_row, logits);
}

Expected<WalkCheck> BlockWalk::check() {
  WalkState& state = *state_;
  if (state.options.held_out == 0) {
    return fail(ErrorCode::kInvalidArgument, "no sequences are held out to compare the models on");
  }
  NIBBLE_RETURN_IF_ERROR(load_head(state));
  std::vector<TokenCheck> checks;
  for (const TokenGroup& group : state.groups) {
    size_t row = group.first_row;
    for (size_t s = group.first_sequence; s < group.first_sequence + group.sequences; ++s) {
      const std::vector<int32_t>& tokens = state.data.sequences[s];
      if (group.held_out) NIBBLE_RETURN_IF_ERROR(check_sequence(state, tokens, row, checks));
      row += tokens.size();
    }
  }
  WalkCheck result;
  result.tokens = checks.size();
  if (checks.empty()) return result;
  double nll_float = 0.0;
  double nll_quantized = 0.0;
  size_t same = 0;
  for (const TokenCheck& token : checks) {
    result.kl += token.kl;
    nll_float += token.nll_float;
    nll_quantized += token.nll_quantized;
    same += token.same_top ? 1 : 0;
  }
  const auto count = static_cast<double>(checks.size());
  result.kl /= count;
  result.top1_agreement = static_cast<double>(same) / count;
  result.perplexity_float = std::exp(nll_float / count);
  result.perplexity_quantized = std::exp(nll_quantized / count);
  return result;
}

}  // namespace nibble
