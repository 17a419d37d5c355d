#include "nibble/pipeline/quantize.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <tuple>

#include "nibble/base/atomic_file.h"
#include "nibble/base/cancel.h"
#include "nibble/base/json.h"
#include "nibble/base/log.h"
#include "nibble/base/progress.h"
#include "nibble/calibration/block_walk.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/convert.h"
#include "nibble/models/model_source.h"
#include "nibble/quantization/bitsandbytes.h"
#include "nibble/quantization/formats/encode.h"
#include "nibble/quantization/formats/gptq.h"
#include "nibble/quantizers/factored_hessian.h"
#include "nibble/quantizers/feedback_solver.h"
#include "nibble/quantizers/gptq_compat.h"
#include "nibble/tokenizer/chat_template.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The new tensors of all modules that are done.
using Tensors = std::map<std::string, Tensor>;

struct Run {
  const ModelSource& source;
  const QuantizeOptions& options;
  ThreadPool& pool;
  Tensors tensors = {};
  std::set<std::string> replaced = {};  // modules whose float weight is left out
  QuantizeResult result = {};
};

// What one module is quantized to; nothing where it stays as it is.
struct ModuleJob {
  GptqSettings settings;
  AffineLayout layout = AffineLayout::kGptq;
};

Expected<std::optional<ModuleJob>> job_of(const Run& run, const std::string& module) {
  ModuleJob job;
  if (const auto* const awq = std::get_if<AwqConfig>(&run.options.config)) {
    const auto& skip = awq->modules_to_not_convert;
    const bool skipped = std::any_of(skip.begin(), skip.end(), [&](const std::string& name) {
      return module.find(name) != std::string::npos;
    });
    if (skipped) return std::optional<ModuleJob>();
    NIBBLE_TRY(job.layout, affine_layout_from_name(awq->version));
    job.settings.bits = awq->bits;
    job.settings.group_size = awq->group_size < 0 ? 0 : static_cast<size_t>(awq->group_size);
    job.settings.sym = !awq->zero_point;
    return std::optional(job);
  }
  const auto& gptq = std::get<GPTQConfig>(run.options.config);
  NIBBLE_TRY(const DynamicRule* const rule, find_dynamic_rule(gptq, module));
  if (rule != nullptr && rule->skip) return std::optional<ModuleJob>();
  NIBBLE_TRY(const GptqParameters parameters, gptq_parameters(gptq, module));
  NIBBLE_TRY(job.layout, affine_layout_from_name(gptq.checkpoint_format));
  job.settings.bits = parameters.bits;
  job.settings.group_size = parameters.group_size < 0 ? 0 : static_cast<size_t>(parameters.group_size);
  job.settings.sym = parameters.sym;
  job.settings.desc_act = parameters.desc_act;
  job.settings.static_groups = parameters.static_groups;
  job.settings.act_group_aware = gptq.act_group_aware && job.settings.group_size > 0;
  job.settings.damp_percent = gptq.damp_percent;
  job.settings.mse = run.options.mse;
  job.settings.zero_may_be_0 = job.layout != AffineLayout::kGptq;
  return std::optional(job);
}

Status add_tensors(Run& run, const std::string& module, const QuantizedWeight& weight, AffineLayout layout) {
  NIBBLE_TRY(auto encoded, at(module, encode_affine(weight, layout)));
  for (auto& [suffix, tensor] : encoded) run.tensors[module + "." + suffix] = std::move(tensor);
  run.replaced.insert(module);
  return {};
}

// The factors of one input's Hessian, by what they depend on: q, k and v share theirs.
struct SharedInput {
  using Key = std::tuple<size_t, bool, double>;  // group size, desc_act, damping

  const InputStatistics& seen;
  std::map<Key, std::optional<FactoredHessian>> factors = {};
};

// The better solver; a Hessian that cannot be factored leaves plain rounding.
Expected<SolvedWeight> solve(const Run& run, const GptqSettings& settings, MatrixView<const float> weight,
                             MatrixView<const float> shift, SharedInput& input) {
  const SharedInput::Key key = {settings.group_size, settings.desc_act, settings.damp_percent};
  auto found = input.factors.find(key);
  if (found == input.factors.end()) {
    const ColumnOrder order = settings.desc_act ? ColumnOrder::kActivation : ColumnOrder::kMinPivot;
    auto factored =
        factor_hessian(input.seen.gram, settings.group_size, order, settings.damp_percent, run.pool);
    found = input.factors.emplace(key, std::move(factored)).first;
  }
  if (!found->second) return round_to_nearest(weight, settings, run.pool);
  return solve_with_feedback(weight, shift, *found->second, settings, solver_steps(run.options.effort),
                             run.pool);
}

// One module, by its statistics or without any.
Status quantize_module(Run& run, const std::string& module, MatrixView<const float> weight,
                       SharedInput* input, MatrixView<const float> shift, MatrixView<float> result) {
  NIBBLE_RETURN_IF_ERROR(check_cancelled());
  NIBBLE_TRY(const std::optional<ModuleJob> job, job_of(run, module));
  if (!job) return {};
  const Clock::time_point start = Clock::now();
  Expected<SolvedWeight> solved =
      input == nullptr ? round_to_nearest(weight, job->settings, run.pool)
      : run.options.effort == Effort::kCompat
          ? quantize_gptq_compat(weight, input->seen.gram, job->settings, run.pool)
          : solve(run, job->settings, weight, shift, *input);
  if (!solved) return Failure(std::move(solved).error().at(module));
  NIBBLE_RETURN_IF_ERROR(add_tensors(run, module, solved->weight, job->layout));
  if (result.data() != nullptr) dequantize_rows(solved->weight, 0, weight.rows(), result.data());
  run.result.modules.push_back({module, weight.rows(), weight.cols(), job->settings.bits, solved->loss,
                                solved->damp, input == nullptr ? 0 : input->seen.tokens, seconds_since(start),
                                solved->rounded_to_nearest});
  return {};
}

Status round_all(Run& run) {
  std::optional<Progress> progress;
  const std::set<std::string> modules = linear_modules(run.source.slots);
  if (run.options.show_progress) progress.emplace("quantizing", modules.size(), "modules");
  for (const ModuleSlot& slot : run.source.slots) {
    if (!modules.contains(slot.name)) continue;
    NIBBLE_TRY(const std::vector<float> weight, run.source.weight(slot.name));
    NIBBLE_RETURN_IF_ERROR(
        quantize_module(run, slot.name, {weight.data(), slot.shape[0], slot.shape[1]}, nullptr, {}, {}));
    if (progress) progress->advance();
  }
  return {};
}

Expected<CalibrationData> calibration_data(const Run& run) {
  const ModelFiles& files = run.source.files;
  NIBBLE_TRY(const Tokenizer tokenizer, AutoTokenizer::from_files(files));
  DatasetOptions options = run.options.data;
  if (const size_t longest = run.source.config.max_position_embeddings; longest > 0) {
    options.sequence_length = std::min(options.sequence_length, longest);
  }
  std::vector<DataSource> sources = run.options.dataset;
  if (sources.empty()) sources.push_back({});
  return load_calibration_data(sources, options, &tokenizer, nullptr, run.source.config.vocab_size);
}

Status calibrate_all(Run& run) {
  NIBBLE_TRY(const CalibrationData data, calibration_data(run));
  run.result.warnings = data.warnings;
  run.result.calibration_tokens = data.num_tokens();
  WalkOptions walk_options;
  walk_options.float_stream = run.options.effort == Effort::kDefault || run.options.effort == Effort::kBest;
  walk_options.arithmetic =
      run.options.compute == ComputeMode::kF32 ? linalg::Arithmetic::kF32 : linalg::fastest_arithmetic();
  walk_options.activations = run.options.compute == ComputeMode::kF32 ? DType::kF32 : DType::kBF16;
  BlockWalk walk(run.source, data, walk_options, run.pool);
  NIBBLE_RETURN_IF_ERROR(walk.start());
  const size_t layers = run.source.config.num_hidden_layers;
  std::optional<Progress> progress;
  if (run.options.show_progress) progress.emplace("quantizing", layers, "blocks");
  for (size_t layer = 0; layer < layers; ++layer) {
    const auto quantize = [&](const InputStatistics& seen, std::span<LinearTask> tasks) -> Status {
      SharedInput input{seen};
      for (LinearTask& task : tasks) {
        NIBBLE_RETURN_IF_ERROR(
            quantize_module(run, task.module, task.weight, &input, task.shift, task.result));
      }
      return {};
    };
    NIBBLE_TRY(const BlockReport report, walk.walk(layer, {.known = {}, .quantize = quantize}));
    if (walk_options.float_stream)
      log_verbose("block {}: the stream is off by {:.3g}", layer, report.stream_error);
    if (progress) progress->advance();
  }
  return {};
}

Json config_with(const ModelSource& source, const QuantizationConfig& quantization) {
  Json json = source.config.json;
  json["quantization_config"] = to_json(quantization);
  return json;
}

Status write_result(const Run& run, const std::filesystem::path& folder) {
  std::vector<TensorSource> tensors;
  for (const auto& [name, info] : run.source.checkpoint->tensors()) {
    const size_t dot = name.rfind('.');
    const bool replaced = name.ends_with(".weight") && run.replaced.contains(name.substr(0, dot));
    if (replaced) continue;
    tensors.push_back({name, info, [&run, tensor = name] { return run.source.checkpoint->tensor(tensor); }});
  }
  for (const auto& [name, tensor] : run.tensors) {
    tensors.push_back({name, tensor.info(), [&tensor = tensor]() -> Expected<Tensor> { return tensor; }});
  }
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  CheckpointWriterOptions options;
  options.max_shard_size = run.options.max_shard_size;
  NIBBLE_RETURN_IF_ERROR(write_checkpoint(folder, tensors, options));
  NIBBLE_RETURN_IF_ERROR(copy_model_texts(run.source.files, folder));
  const Json config = config_with(run.source, run.options.config);
  if (std::holds_alternative<GPTQConfig>(run.options.config)) {
    NIBBLE_RETURN_IF_ERROR(
        write_file(folder / "quantize_config.json", dump_json(config["quantization_config"]) + "\n"));
  }
  // Last: a folder without it is no model to anybody.
  return write_file(folder / "config.json", dump_json(config) + "\n");
}

Status quantize_bitsandbytes(const Run& run, const BitsAndBytesConfig& config,
                             const std::filesystem::path& folder) {
  ModelFiles files = run.source.files;
  files.texts["config.json"] = dump_json(config_with(run.source, config)) + "\n";
  const auto quantized =
      quantize_on_the_fly(run.source.checkpoint, config, linear_modules(run.source.slots), run.pool);
  return write_model_folder(files, *quantized, folder, run.options.max_shard_size);
}

}  // namespace

Expected<QuantizeResult> quantize_model(const ModelFiles& files, const std::filesystem::path& folder,
                                        const QuantizeOptions& options, ThreadPool& pool) {
  const Clock::time_point start = Clock::now();
  NIBBLE_TRY(const ModelSource source, ModelSource::open(files));
  if (!source.quantized.empty()) {
    return fail(ErrorCode::kInvalidArgument, "the model is quantized already")
        .at(files.name)
        .with_fix("Start from the float model, or make one of it first: nibble dequantize MODEL -o DIR");
  }
  Run run = {source, options, pool};
  if (const auto* const bnb = std::get_if<BitsAndBytesConfig>(&options.config)) {
    NIBBLE_RETURN_IF_ERROR(quantize_bitsandbytes(run, *bnb, folder));
  } else {
    NIBBLE_RETURN_IF_ERROR(options.round_to_nearest ? round_all(run) : calibrate_all(run));
    NIBBLE_RETURN_IF_ERROR(write_result(run, folder));
  }
  run.result.seconds = seconds_since(start);
  return std::move(run.result);
}

}  // namespace nibble
