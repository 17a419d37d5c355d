#include <algorithm>
#include <chrono>
#include <map>
#include <tuple>

#include "nibble/base/cancel.h"
#include "nibble/base/log.h"
#include "nibble/calibration/block_walk.h"
#include "nibble/pipeline/run.h"
#include "nibble/pipeline/walk_driver.h"
#include "nibble/quantizers/factored_hessian.h"
#include "nibble/quantizers/feedback_solver.h"
#include "nibble/quantizers/gptq_compat.h"
#include "nibble/quantizers/round_to_nearest.h"

namespace nibble {
namespace {

// An expert that fewer tokens reach is rounded without calibration, as in GPTQModel ("0.5%").
constexpr double kFewestTokens = 0.005;

// The factors of one input's Hessian, by what they depend on: q, k and v share theirs.
struct SharedInput {
  using Key = std::tuple<size_t, bool, double>;  // group size, desc_act, damping

  const InputStatistics& seen;
  std::map<Key, std::optional<FactoredHessian>> factors = {};
};

// The better solver; a Hessian that cannot be factored leaves plain rounding.
Expected<SolvedWeight> solve(const Run& run, const GptqSettings& settings, const LinearTask& task,
                             SharedInput& input) {
  const SharedInput::Key key = {settings.group_size, settings.desc_act, settings.damp_percent};
  auto found = input.factors.find(key);
  if (found == input.factors.end()) {
    const ColumnOrder order = settings.desc_act ? ColumnOrder::kActivation : ColumnOrder::kMinPivot;
    auto factored =
        factor_hessian(input.seen.gram, settings.group_size, order, settings.damp_percent, run.pool);
    found = input.factors.emplace(key, std::move(factored)).first;
  }
  if (!found->second) return round_to_nearest(task.weight, settings, run.pool);
  return solve_with_feedback(task.weight, task.shift, *found->second, settings,
                             run.options.solver.value_or(solver_steps(run.options.effort)), run.pool);
}

// The rest of the walk goes on with the values of the codes.
void write_values(const QuantizedWeight& weight, MatrixView<float> values, ThreadPool& pool) {
  pool.parallel_for(values.rows(), 16, [&](size_t begin, size_t end, size_t) {
    dequantize_rows(weight, begin, end, values.row(begin));
  });
}

Status quantize_module(Run& run, const ModuleJob& job, const LinearTask& task, SharedInput& input,
                       size_t all_tokens) {
  NIBBLE_RETURN_IF_ERROR(check_cancelled());
  const auto start = std::chrono::steady_clock::now();
  QuantizedModule row;
  row.tokens = input.seen.tokens;
  GptqSettings settings = job.settings;
  if (run.options.effort != Effort::kCompat) {
    settings.damp_percent =
        run.options.damp_percent.value_or(damping_for(input.seen.tokens, job.in_features));
  }
  const bool too_few =
      static_cast<double>(input.seen.tokens) < kFewestTokens * static_cast<double>(all_tokens);
  Expected<SolvedWeight> solved = too_few ? round_to_nearest(task.weight, settings, run.pool)
                                  : run.options.effort == Effort::kCompat
                                      ? quantize_gptq_compat(task.weight, input.seen.gram, settings, run.pool)
                                      : solve(run, settings, task, input);
  if (!solved) return Failure(std::move(solved).error().at(job.module));
  write_values(solved->weight, task.result, run.pool);
  row.loss = solved->loss;
  row.damp = solved->damp;
  if (too_few) {
    row.note = fmt::format("rounded to nearest: only {} tokens reached it", input.seen.tokens);
  } else if (solved->rounded_to_nearest) {
    row.note = "rounded to nearest: its inputs have no usable second moments";
  }
  if (!row.note.empty()) {
    run.result.warnings.push_back(fmt::format("{}: {}", job.module, row.note));
  }
  row.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return finish_module(run, job, solved->weight, std::move(row));
}

}  // namespace

Status quantize_calibrated(Run& run, const CalibrationData& data) {
  const bool corrected = run.options.effort == Effort::kDefault || run.options.effort == Effort::kBest;
  WalkOptions options = walk_options(run);
  options.float_stream = corrected;
  WalkSteps steps;
  steps.known = [&](std::span<const std::string> modules) { return is_known(run, modules); };
  steps.quantize = [&](const InputStatistics& seen, std::span<LinearTask> tasks) -> Status {
    SharedInput input{seen};
    for (LinearTask& task : tasks) {
      const ModuleJob* const job = run.jobs.find(task.module);
      if (job == nullptr) continue;  // stays as it is
      if (run.folder.has(task.module)) {
        NIBBLE_TRY(const QuantizedWeight weight, finished_weight(run, *job));
        write_values(weight, task.result, run.pool);
        continue;
      }
      NIBBLE_RETURN_IF_ERROR(quantize_module(run, *job, task, input, data.num_tokens()));
    }
    return {};
  };
  return drive_walk(run, data, options, [&](BlockWalk& walk, size_t layer) -> Status {
    if (layer == run.source.config.num_hidden_layers) return walk.walk_head(steps);
    NIBBLE_TRY(const BlockReport report, walk.walk(layer, steps));
    if (corrected) log_verbose("block {}: the stream is off by {:.3g}", layer, report.stream_error);
    return {};
  });
}

}  // namespace nibble
