#include "nibble/pipeline/model_plan.h"

#include <algorithm>

#include "nibble/base/memory.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

constexpr size_t kDefaultContext = 4096;

// What `nibble quantize` calibrates with by default.
constexpr size_t kSamples = 128;
constexpr size_t kSampleTokens = 2048;

Expected<size_t> context_of(const PretrainedConfig& config, const ModelPlanOptions& options) {
  const size_t longest = config.max_position_embeddings;
  if (!options.context) return longest > 0 ? std::min(longest, kDefaultContext) : kDefaultContext;
  if (longest == 0 || *options.context <= longest) return *options.context;
  return fail(ErrorCode::kInvalidArgument, "the model was made for {} tokens, not for {}", longest,
              *options.context)
      .at("--ctx-size")
      .with_fix(fmt::format("Use --ctx-size {} or less.", longest));
}

// "gptq:4:128" of what a configuration says.
std::string name_of(const QuantizationConfig& config, bool round_to_nearest = false) {
  if (const auto* const bnb = std::get_if<BitsAndBytesConfig>(&config)) {
    if (bnb->load_in_8bit) return "int8";
    return bnb->bnb_4bit_quant_type + (bnb->bnb_4bit_use_double_quant ? "-dq" : "");
  }
  if (const auto* const awq = std::get_if<AwqConfig>(&config)) {
    return fmt::format("awq:{}:{}", awq->bits, awq->group_size);
  }
  const auto& gptq = std::get<GPTQConfig>(config);
  return fmt::format("{}:{}:{}", round_to_nearest ? "rtn" : "gptq", gptq.bits, gptq.group_size);
}

std::string effort_suffix(Effort effort) {
  return effort == Effort::kDefault ? "" : fmt::format(":{}", effort_name(effort));
}

double bits_each(size_t bytes, size_t weights) {
  return weights > 0 ? 8.0 * static_cast<double>(bytes) / static_cast<double>(weights) : 0.0;
}

// Bits of the linear layers as they lie in the files.
Expected<double> stored_bits(const ModelSource& source) {
  size_t bytes = 0;
  size_t weights = 0;
  for (const ModuleSlot& slot : source.slots) {
    if (slot.role != ModuleRole::kLinear) continue;
    weights += slot.shape[0] * slot.shape[1];
    if (source.quantized.contains(slot.name)) {
      NIBBLE_TRY(const ModuleSummary summary,
                 summarize_module(*source.checkpoint, slot.name, *source.quantization));
      bytes += summary.stored_bytes;
    } else if (const TensorInfo* const info = source.checkpoint->find(slot.name + ".weight")) {
      bytes += num_bytes(*info).value_or(0);
    }
  }
  return bits_each(bytes, weights);
}

size_t all_tensor_bytes(const Checkpoint& checkpoint) {
  size_t bytes = 0;
  for (const auto& [name, info] : checkpoint.tensors()) bytes += num_bytes(info).value_or(0);
  return bytes;
}

std::vector<size_t> calibration_lengths(const PretrainedConfig& config, const QuantizeOptions& options) {
  if (options.round_to_nearest || std::holds_alternative<BitsAndBytesConfig>(options.config)) return {};
  const size_t longest = config.max_position_embeddings;
  return std::vector<size_t>(kSamples, longest > 0 ? std::min(longest, kSampleTokens) : kSampleTokens);
}

class Planner {
 public:
  Planner(const ModelSource& source, const ModelPlanOptions& options, const RunSettings& settings,
          const linalg::MachineSpeed& speed, ThreadPool& pool, size_t memory)
      : source_(source),
        options_(options),
        settings_(settings),
        speed_(speed),
        pool_(pool),
        memory_(memory) {}

  Expected<PlanRow> as_stored() {
    PlanRow row;
    row.method =
        source_.quantization && !source_.quantized.empty() ? name_of(*source_.quantization) : "float";
    row.disk_bytes = all_tensor_bytes(*source_.checkpoint);
    NIBBLE_TRY(row.bits_per_weight, stored_bits(source_));
    NIBBLE_TRY(const StorageMap storage, stored_linears(source_));
    finish(storage, row);
    return row;
  }

  Expected<PlanRow> quantized(QuantizeOptions request) {
    request.max_memory = options_.max_memory;
    NIBBLE_TRY(const Jobs jobs, make_jobs(source_, request));
    PlanRow row;
    row.method = name_of(jobs.config, request.round_to_nearest);
    row.method += effort_suffix(request.effort);
    // Once for all rows, so that they can be compared.
    if (gemm_speed_ == 0) gemm_speed_ = linalg::measure_gemm(linalg::fastest_arithmetic(), pool_);
    NIBBLE_TRY(row.quantize, make_plan(source_, jobs, request, calibration_lengths(source_.config, request),
                                       pool_, gemm_speed_));
    row.disk_bytes = row.quantize->output_bytes;
    row.bits_per_weight = row.quantize->bits_per_weight;
    row.can_be_quantized = fits(row.quantize->peak_memory);
    finish(quantized_linears(source_, jobs), row);
    return row;
  }

 private:
  bool fits(size_t bytes) const { return memory_ == 0 || bytes <= memory_; }

  void finish(const StorageMap& storage, PlanRow& row) const {
    row.run = plan_run(source_, storage, settings_, speed_);
    row.runs = fits(row.run.peak_memory);
  }

  const ModelSource& source_;
  const ModelPlanOptions& options_;
  const RunSettings& settings_;
  const linalg::MachineSpeed& speed_;
  ThreadPool& pool_;
  const size_t memory_;
  double gemm_speed_ = 0;
};

Status add_rows(const ModelSource& source, const ModelPlanOptions& options, Planner& planner,
                ModelPlan& plan) {
  const bool by_default = options.methods.empty();
  std::vector<Method> methods = options.methods;
  if (by_default) {
    NIBBLE_TRY(methods, parse_methods(source.quantized.empty() ? kPlannedMethods : "float"));
  }
  for (const Method& method : methods) {
    if (method.quantizes && !source.quantized.empty()) {
      return fail(ErrorCode::kInvalidArgument, "the model is quantized already")
          .at(method.label)
          .with_fix("Plan from the float model, or leave --methods out.");
    }
    auto row = method.quantizes ? planner.quantized(method.options) : planner.as_stored();
    if (row) {
      plan.rows.push_back(std::move(*row));
    } else if (by_default) {
      plan.left_out.push_back(fmt::format("{}: {}", method.label, row.error().what));
    } else {
      return Failure(std::move(row).error().at(method.label));
    }
  }
  return {};
}

size_t megabytes(size_t bytes) { return (bytes + 999'999) / 1'000'000; }

}  // namespace

Expected<ModelPlan> plan_model(const ModelSource& source, const ModelPlanOptions& options,
                               const linalg::MachineSpeed& speed, ThreadPool& pool) {
  ModelPlan plan;
  plan.model = source.files.name;
  plan.parallel = options.parallel;
  plan.memory = options.max_memory > 0 ? options.max_memory : options.available_memory;
  plan.memory_is_limit = options.max_memory > 0;
  NIBBLE_TRY(plan.context, context_of(source.config, options));
  const RunSettings settings = {.context = plan.context,
                                .parallel = options.parallel,
                                .threads = pool.num_threads(),
                                .kv_cache_type = options.kv_cache_type,
                                .huge_pages = options.huge_pages};
  Planner planner(source, options, settings, speed, pool, plan.memory);
  NIBBLE_RETURN_IF_ERROR(add_rows(source, options, planner, plan));
  return plan;
}

Status check_any_runs(const ModelPlan& plan) {
  const auto runs = [](const PlanRow& row) { return row.runs; };
  if (plan.rows.empty() || std::any_of(plan.rows.begin(), plan.rows.end(), runs)) return {};
  const auto smallest =
      std::min_element(plan.rows.begin(), plan.rows.end(),
                       [](const auto& a, const auto& b) { return a.run.peak_memory < b.run.peak_memory; });
  const RunPlan& run = smallest->run;
  std::string fix;
  // Contexts take most of what is asked for: the largest that fits, in blocks of the cache.
  const size_t without_cache = run.peak_memory - std::min(run.peak_memory, run.kv_bytes);
  if (without_cache < plan.memory && plan.context > 64) {
    const double share = static_cast<double>(plan.memory - without_cache) /
                         static_cast<double>(std::max<size_t>(1, run.kv_bytes));
    const auto context = static_cast<size_t>(share * static_cast<double>(plan.context)) / 64 * 64;
    if (context > 0) fix += fmt::format("With --ctx-size {} {} would fit. ", context, smallest->method);
  }
  fix += plan.memory_is_limit
             ? fmt::format("{} fits --max-memory {}M.", smallest->method, megabytes(run.peak_memory))
             : fmt::format("A machine with {} free could run {}.", human_bytes(run.peak_memory),
                           smallest->method);
  return fail(ErrorCode::kOutOfMemory, "nothing fits {}{}: {} needs the least, about {}",
              human_bytes(plan.memory), plan.memory_is_limit ? " (--max-memory)" : " that are free",
              smallest->method, human_bytes(run.peak_memory))
      .at(plan.model)
      .with_fix(fix);
}

}  // namespace nibble
