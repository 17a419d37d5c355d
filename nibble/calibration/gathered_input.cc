#include "nibble/calibration/gathered_input.h"

#include <algorithm>
#include <cmath>

#include "nibble/calibration/row_loops.h"
#include "nibble/calibration/walk_state.h"
#include "nibble/linalg/gemm.h"

namespace nibble {
namespace {

void scale_rows(MatrixView<float> x, float factor, ThreadPool& pool) {
  pool.parallel_for(x.rows(), kRowsPerChunk, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      for (float& v : x.row_span(r)) v *= factor;
    }
  });
}

float one_over(size_t tokens) { return tokens > 0 ? 1.f / static_cast<float>(tokens) : 0.f; }

// D of the target. The Gram matrix is finished.
std::vector<float> make_shift(WalkState& state, const LinearStack& stack, GatheredInput& seen) {
  std::vector<float> shift(stack.out * stack.in);
  const MatrixView<float> view(shift.data(), stack.out, stack.in);
  const MatrixView<const float> weight = stack.all(false).weight;
  const auto alpha = static_cast<float>(state.options.alpha);
  const float mean = one_over(seen.tokens);
  if (seen.mismatch == MismatchKind::kInputs) {
    linalg::gemm({weight}, {seen.mismatch_view()}, view, {}, state.pool);
    scale_rows(view, mean * alpha, state.pool);
    return shift;
  }
  copy_rows(seen.mismatch_view(), view, state.pool);
  scale_rows(view, mean, state.pool);
  if (seen.mismatch == MismatchKind::kShift || alpha == 0.f) return shift;
  scale_rows(view, 1.f / alpha, state.pool);
  linalg::gemm({weight}, {seen.gram_view()}, view, {.accumulate = true, .negate = true}, state.pool);
  scale_rows(view, alpha, state.pool);
  return shift;
}

}  // namespace

void add_gram(GatheredInput& seen, MatrixView<const float> x, linalg::Arithmetic arithmetic,
              ThreadPool& pool) {
  linalg::gemm({x, true}, {x}, seen.gram_view(),
               {.accumulate = true, .lower_triangle = true, .arithmetic = arithmetic}, pool);
}

void add_mismatch(GatheredInput& seen, MatrixView<const float> difference, MatrixView<const float> x,
                  linalg::Arithmetic arithmetic, ThreadPool& pool) {
  linalg::gemm({difference, true}, {x}, seen.mismatch_view(), {.accumulate = true, .arithmetic = arithmetic},
               pool);
}

Expected<InputStatistics> finish(GatheredInput& seen, const std::string& reader, ThreadPool& pool) {
  const MatrixView<float> gram = seen.gram_view();
  const float mean = one_over(seen.tokens);
  scale_rows(gram, mean, pool);
  linalg::mirror_lower(gram, pool);
  seen.mean_abs.resize(seen.in);
  for (size_t i = 0; i < seen.in; ++i) {
    seen.mean_abs[i] = static_cast<float>(seen.magnitudes[i] * double{mean});
    if (std::isfinite(gram.row(i)[i])) continue;
    return fail(ErrorCode::kDataLoss, "its input {} is not finite for the calibration data", i)
        .at(reader)
        .with_fix("The model overflows: check that it gives sensible text, or calibrate with --compute f32.");
  }
  return InputStatistics{gram, seen.mean_abs, seen.tokens};
}

bool is_known(const WalkSteps& steps, const LinearStack& stack) {
  return steps.known && steps.known(stack.modules);
}

Status quantize_stack(WalkState& state, LinearStack& stack, GatheredInput* seen, const WalkSteps& steps) {
  InputStatistics statistics;
  std::vector<float> shift;
  if (seen != nullptr) {
    NIBBLE_TRY(statistics, finish(*seen, stack.modules.front(), state.pool));
    if (seen->rows > 0) shift = make_shift(state, stack, *seen);
  }
  stack.quantized = stack.original;
  std::vector<LinearTask> tasks;
  size_t row = 0;
  for (size_t i = 0; i < stack.modules.size(); ++i) {
    const size_t rows = stack.rows[i];
    MatrixView<const float> own_shift;
    if (!shift.empty()) own_shift = {shift.data() + row * stack.in, rows, stack.in};
    tasks.push_back({stack.modules[i], stack.part(false, row, rows).weight, own_shift,
                     MatrixView<float>(stack.quantized.data() + row * stack.in, rows, stack.in)});
    row += rows;
  }
  return steps.quantize(statistics, tasks);
}

}  // namespace nibble
