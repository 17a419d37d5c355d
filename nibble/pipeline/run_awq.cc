#include <chrono>

#include "nibble/base/log.h"
#include "nibble/models/load_weights.h"
#include "nibble/pipeline/awq_block.h"
#include "nibble/pipeline/run.h"
#include "nibble/pipeline/walk_driver.h"

namespace nibble {
namespace {

std::string folds_entry(size_t layer) { return fmt::format("layer-{}-folds", layer); }

// The tensors that a fold has changed, in the type that the file has them in; scales of an activation, which
// it need not have, in AWQ's.
Status keep_folds(Run& run, size_t layer, const FloatTensors& folded) {
  JournalEntry entry;
  for (const auto& [name, values] : folded) {
    const TensorInfo* const info = run.source.checkpoint->find(name);
    const Shape shape = info != nullptr ? info->shape : Shape{values.size()};
    NIBBLE_TRY(entry.tensors[name], convert_tensor(Tensor::of(DType::kF32, shape, values),
                                                   info != nullptr ? info->dtype : DType::kF16));
  }
  return run.folder.put(folds_entry(layer), entry);
}

Status quantize_block(Run& run, BlockWalk& walk, size_t layer, std::span<const BlockInput> seen) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<AwqInput> inputs;
  for (const BlockInput& input : seen) {
    if (run.source.slot(input.modules.front()).role == ModuleRole::kRouter) continue;
    inputs.push_back({input.modules, input.seen.gram, input.seen.mean_abs, input.seen.tokens});
  }
  const auto& config = std::get<AwqConfig>(run.jobs.config);
  AwqBlockOptions options;
  options.search.group_size = config.group_size < 0 ? 0 : static_cast<size_t>(config.group_size);
  options.search.zero_point = config.zero_point;
  for (const AwqInput& input : inputs) {
    for (const std::string& module : input.modules) {
      if (run.jobs.find(module) == nullptr) options.skipped.insert(module);
    }
  }
  const auto prove = [&](const FloatTensors& changed) { return walk.block_difference({changed}); };
  NIBBLE_TRY(const AwqBlockResult block,
             quantize_awq_block(run.source, layer, inputs, options, prove, run.pool));
  log_verbose("block {}: folding changed its output by {:.2g}", layer, block.proof);
  // First: where every module is finished, the folds are there too.
  NIBBLE_RETURN_IF_ERROR(keep_folds(run, layer, block.folded));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const AwqModule& module : block.modules) {
    const auto weight = block.weights.find(module.module);
    if (weight == block.weights.end()) continue;
    QuantizedModule row;
    row.seconds = seconds / static_cast<double>(block.weights.size());
    row.loss = module.relative_error;
    row.tokens = module.tokens;
    if (module.tokens == 0) {
      row.note = "rounded to nearest: no token reached it";
      run.result.warnings.push_back(fmt::format("{}: {}", module.module, row.note));
    } else if (module.scaled) {
      row.note = fmt::format("scale ratio {:.2f} took the group's loss from {:.3g} to {:.3g}", module.ratio,
                             module.loss_unscaled, module.loss);
    }
    NIBBLE_RETURN_IF_ERROR(finish_module(run, *run.jobs.find(module.module), weight->second, std::move(row)));
  }
  return {};
}

}  // namespace

Status quantize_awq(Run& run, const CalibrationData& data) {
  WalkOptions options = walk_options(run);
  options.float_stream = false;  // the one stream goes on with the float weights
  return drive_walk(run, data, options, [&](BlockWalk& walk, size_t layer) -> Status {
    const std::vector<std::string> modules =
        linears_of_block(block_modules(run.source.spec, layer, run.source.prefix_missing));
    if (is_known(run, modules)) return walk.gather_block(layer, {});
    return walk.gather_block(
        layer, [&](std::span<const BlockInput> seen) { return quantize_block(run, walk, layer, seen); });
  });
}

}  // namespace nibble
