#include "nibble/pipeline/quantize.h"

#include <algorithm>
#include <chrono>

#include "nibble/base/log.h"
#include "nibble/models/input_scales.h"
#include "nibble/pipeline/run.h"
#include "nibble/quantization/dequantized_checkpoint.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

Expected<ModelSource> open_source(const ModelFiles& files, const QuantizeOptions& options) {
  NIBBLE_TRY(ModelSource source, ModelSource::open(files));
  if (source.quantized.empty()) {
    source.checkpoint = absorb_input_scales(source.checkpoint, source.slots);
    return source;
  }
  if (!options.from_quantized) {
    return fail(ErrorCode::kInvalidArgument, "the model is quantized already")
        .at(files.name)
        .with_fix("Start from the float model. To quantize what these codes stand for: --from-quantized.");
  }
  NIBBLE_TRY(source.checkpoint, dequantize_on_the_fly(source.checkpoint, *source.quantization));
  source.checkpoint = absorb_input_scales(source.checkpoint, source.slots);
  source.quantized.clear();
  source.quantization.reset();
  source.config.json.erase("quantization_config");
  return source;
}

// Tokens need no tokenizer.
bool needs_tokenizer(const std::vector<DataSource>& sources) {
  return std::any_of(sources.begin(), sources.end(),
                     [](const DataSource& source) { return source.path.extension() != ".safetensors"; });
}

Expected<CalibrationData> calibration_data(const ModelSource& source, const QuantizeOptions& options) {
  if (quantizes_while_writing(options)) return CalibrationData{};
  DatasetOptions data = options.data;
  if (const size_t longest = source.config.max_position_embeddings; longest > 0) {
    data.sequence_length = std::min(data.sequence_length, longest);
  }
  for (const ModuleSlot& slot : source.slots) {
    if (slot.role != ModuleRole::kLinear) continue;
    data.widest_in_features = std::max(data.widest_in_features, slot.shape[1]);
  }
  std::vector<DataSource> sources = options.dataset;
  if (sources.empty()) sources.push_back({});
  std::optional<Tokenizer> tokenizer;
  if (needs_tokenizer(sources)) {
    NIBBLE_TRY(tokenizer, AutoTokenizer::from_files(source.files));
  }
  return load_calibration_data(sources, data, tokenizer ? &*tokenizer : nullptr, nullptr,
                               source.config.vocab_size);
}

// What is known before the work starts.
struct Prepared {
  ModelSource source;
  Jobs jobs;
  CalibrationData data;
  QuantizePlan plan;
};

Expected<Prepared> prepare(const ModelFiles& files, const QuantizeOptions& options, ThreadPool& pool) {
  NIBBLE_TRY(ModelSource source, open_source(files, options));
  NIBBLE_TRY(Jobs jobs, make_jobs(source, options));
  NIBBLE_TRY(CalibrationData data, calibration_data(source, options));
  std::vector<size_t> lengths;
  for (const auto& sequence : data.sequences) lengths.push_back(sequence.size());
  NIBBLE_TRY(QuantizePlan plan, make_plan(source, jobs, options, lengths, pool));
  return Prepared{std::move(source), std::move(jobs), std::move(data), std::move(plan)};
}

Status check_places(const ModelFiles& files, const fs::path& folder) {
  std::error_code error;
  const fs::path source = files.gguf.empty() ? files.folder : files.gguf.parent_path();
  if (!fs::equivalent(source, folder, error) || error) return {};
  return fail(ErrorCode::kInvalidArgument, "the output is the folder of the model that is read")
      .at(folder.string())
      .with_fix("Name another folder with -o.");
}

Status quantize_modules(Run& run, const CalibrationData& data) {
  if (quantizes_while_writing(run.options)) return {};
  size_t known = 0;
  size_t all = 0;
  for (const auto& [module, job] : run.jobs.modules) {
    all += job.out_features * job.in_features;
    if (run.folder.has(module)) known += job.out_features * job.in_features;
  }
  if (run.options.show_progress) run.progress.emplace("quantizing", all - known, "");
  Status done;
  if (std::holds_alternative<AwqConfig>(run.jobs.config) && run.options.effort == Effort::kCompat) {
    done = quantize_awq(run, data);
  } else {
    done = quantize_calibrated(run, data);
  }
  run.progress.reset();
  return done;
}

size_t finished_modules(const RunFolder& folder, const Jobs& jobs) {
  return static_cast<size_t>(std::count_if(jobs.modules.begin(), jobs.modules.end(),
                                           [&](const auto& job) { return folder.has(job.first); }));
}

// What is finished stays; the user should know.
Error with_way_on(Error error, const RunFolder& folder, const Jobs& jobs) {
  const size_t finished = finished_modules(folder, jobs);
  // What is wrong with the model or the request stays wrong.
  const bool passes = error.code == ErrorCode::kCancelled || error.code == ErrorCode::kUnavailable;
  if (finished == 0 || !passes) return error;
  const std::string way =
      fmt::format("{} of {} modules are finished and kept: run the same command again to go on.", finished,
                  jobs.modules.size());
  if (error.code == ErrorCode::kCancelled || error.fix.empty()) {
    error.fix = way;
  } else {
    error.fix += "\n  " + way;
  }
  return error;
}

Status run_phases(Run& run, const CalibrationData& data, const Json& description) {
  NIBBLE_RETURN_IF_ERROR(quantize_modules(run, data));
  NIBBLE_RETURN_IF_ERROR(write_result(run, description));
  if (run.options.check) {
    NIBBLE_TRY(run.result.check, check_written_model(run));
  }
  return run.folder.finish();
}

}  // namespace

Expected<QuantizePlan> plan_quantization(const ModelFiles& files, const fs::path& folder,
                                         const QuantizeOptions& options, ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(check_places(files, folder));
  NIBBLE_TRY(const Prepared prepared, prepare(files, options, pool));
  return prepared.plan;
}

Expected<QuantizeResult> quantize_model(const ModelFiles& files, const fs::path& folder_path,
                                        const QuantizeOptions& options, ThreadPool& pool) {
  const auto start = std::chrono::steady_clock::now();
  NIBBLE_RETURN_IF_ERROR(check_places(files, folder_path));
  NIBBLE_TRY(const Prepared prepared, prepare(files, options, pool));
  QuantizeResult result;
  result.plan = prepared.plan;
  result.warnings = prepared.data.warnings;
  result.calibration_tokens = prepared.data.num_tokens();
  if (options.show_progress) log_line(LogLevel::kNormal, to_text(result.plan));
  NIBBLE_RETURN_IF_ERROR(check_fits(result.plan, options, folder_path));
  NIBBLE_TRY(const Json description,
             describe_run(prepared.source, prepared.jobs, options, result.plan, prepared.data));
  NIBBLE_TRY(RunFolder folder, RunFolder::open(folder_path, description, options.overwrite));
  result.was_finished = folder.finished();
  if (result.was_finished) return result;
  result.resumed_modules = finished_modules(folder, prepared.jobs);
  if (options.show_progress && result.resumed_modules > 0) {
    log_line(LogLevel::kNormal, fmt::format("going on: {} of {} modules are finished", result.resumed_modules,
                                            prepared.jobs.modules.size()));
  }
  Run run = {prepared.source, prepared.jobs, options, folder, pool, result};
  if (Status done = run_phases(run, prepared.data, description); !done) {
    return Failure(with_way_on(std::move(done).error(), folder, prepared.jobs));
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

Status calibrate_while_loading(const ModelFiles& files, const QuantizationConfig& config,
                               const fs::path& folder, ThreadPool& pool) {
  QuantizeOptions options;
  options.config = config;
  if (auto* const gptq = std::get_if<GPTQConfig>(&options.config)) {
    gptq->has_sym = true;
    options.damp_percent = gptq->damp_percent;
    if (gptq->quantizer.empty()) gptq->quantizer = {"nibble:" NIBBLE_VERSION};
    if (!gptq->dataset.empty()) {
      NIBBLE_TRY(options.dataset, parse_dataset(gptq->dataset));
    }
    // The v1 layout cannot hold every zero point.
    if (!gptq->sym && gptq->checkpoint_format == "gptq") gptq->checkpoint_format = "gptq_v2";
  }
  options.overwrite = true;  // an empty folder of the caller's
  options.check = false;
  NIBBLE_TRY(const QuantizeResult result, quantize_model(files, folder, options, pool));
  for (const std::string& warning : result.warnings) warn_once(warning);
  return {};
}

}  // namespace nibble
