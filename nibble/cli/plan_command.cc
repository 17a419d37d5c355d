#include <memory>

#include "nibble/base/cancel.h"
#include "nibble/base/log.h"
#include "nibble/base/machine.h"
#include "nibble/base/memory.h"
#include "nibble/cli/command.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/hub/remote_checkpoint.h"
#include "nibble/pipeline/model_plan.h"

namespace nibble::cli {
namespace {

// Half of what `nibble doctor` takes: an estimate needs no more.
constexpr double kMeasureSeconds = 0.5;

struct PlanArguments {
  CommonOptions common;
  ModelOption model;
  std::string methods, max_memory;
  std::string kv_cache_type = std::string(kv_cache_type_name(KvCacheType::kF16));
  std::optional<int64_t> ctx_size, parallel;
};

Expected<ModelPlanOptions> to_plan_options(const PlanArguments& options, const Machine& machine) {
  ModelPlanOptions out;
  if (!options.methods.empty()) {
    NIBBLE_TRY(out.methods, parse_methods(options.methods));
  }
  if (!options.max_memory.empty()) {
    NIBBLE_TRY(out.max_memory, at("--max-memory", parse_bytes(options.max_memory)));
  }
  if (options.ctx_size) out.context = static_cast<size_t>(*options.ctx_size);
  out.parallel = static_cast<size_t>(options.parallel.value_or(1));
  for (const KvCacheType type : {KvCacheType::kF32, KvCacheType::kF16, KvCacheType::kInt8}) {
    if (options.kv_cache_type == kv_cache_type_name(type)) out.kv_cache_type = type;
  }
  out.available_memory = machine.usable_memory_bytes();
  out.huge_pages = machine.huge_pages.enabled();
  return out;
}

// A model on this machine, or the headers of one that is only on the hub (not those of GGUF files).
Expected<ModelSource> open_source(const ModelOption& option) {
  const auto missing = missing_from_cache(option.model, option.revision);
  if (!missing || !missing->quant.empty() || is_hub_offline()) {
    NIBBLE_TRY(const ModelFiles files, find_model(option.model, option.revision));
    return ModelSource::open(files);
  }
  log_line(LogLevel::kNormal,
           fmt::format("{} is not in the cache: reading its headers on the hub", option.model));
  NIBBLE_TRY(RemoteModel model, open_remote(to_string(*missing)));
  NIBBLE_TRY(const RemoteHeaders headers, read_remote_headers(std::move(model)));
  NIBBLE_TRY(ModelSource source, ModelSource::open(headers.files, headers.checkpoint));
  source.tokenizer_bytes = headers.tokenizer_bytes;
  return source;
}

Status run_plan(const PlanArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  const Machine machine = read_machine();
  NIBBLE_TRY(const ModelPlanOptions request, to_plan_options(options, machine));
  NIBBLE_TRY(const ModelSource source, open_source(options.model));
  ThreadPool pool(options.common.num_threads());
  const size_t buffer =
      linalg::probe_buffer_bytes(machine.last_level_cache_bytes(), machine.usable_memory_bytes());
  const linalg::MachineSpeed speed =
      linalg::measure_machine({.buffer_bytes = buffer, .seconds = kMeasureSeconds}, pool);
  NIBBLE_RETURN_IF_ERROR(check_cancelled());
  NIBBLE_TRY(const ModelPlan plan, plan_model(source, request, speed, pool));
  if (Status fits = check_any_runs(plan); !fits) {
    // The numbers say how much is missing.
    if (!options.common.json) NIBBLE_RETURN_IF_ERROR(write_stdout(to_text(plan)));
    attach_to_error("plan", to_json(plan));
    return fits;
  }
  if (!options.common.json) return write_stdout(to_text(plan));
  Json json = to_json(plan);
  json["warnings"] = warnings();
  return write_json(json);
}

Action define_plan(CLI::App& app) {
  const auto options = std::make_shared<PlanArguments>();
  add_model_option(app, options->model);
  add_integer(app, "-c,--ctx-size,--max-model-len", options->ctx_size,
              "Tokens that a sequence may have (default: what the model was made for, 4096 at most)", 1,
              int64_t{1} << 31);
  add_integer(app, "--parallel", options->parallel, "Sequences at once (default 1)", 1, 1 << 16);
  add_kv_cache_type(app, options->kv_cache_type, "Stored keys and values", {"f16", "f32", "int8"});
  app.add_option("--max-memory", options->max_memory, "What may be taken: 8G (default: what is free here)")
      ->type_name("SIZE");
  app.add_option(
         "--methods", options->methods,
         "float, nf4, fp4, int8, nf4-dq, and gptq, awq or rtn with :BITS, :GROUP_SIZE, :EFFORT, with commas "
         "between them (default: float,nf4,nf4-dq,int8,gptq:4,gptq:3,awq:4)")
      ->type_name("LIST");
  add_common_options(app, options->common, "Print the plan as JSON");
  return [options] { return run_plan(*options); };
}

}  // namespace

const Command kPlanCommand = {
    .name = "plan",
    .summary = "Say what a model takes to run and to quantize, each way, before anything is read",
    .examples =
        "  nibble plan ./model\n"
        "  nibble plan ./model --max-memory 8G --ctx-size 8192 --parallel 4\n"
        "  nibble plan ./model --parallel 8 --kv-cache-type int8\n"
        "  nibble plan ./model --methods nf4,gptq:4:32,gptq:2 --json\n"
        "  nibble plan org/name             # of a model that is only on the hub: reads headers",
    .define = define_plan,
};

}  // namespace nibble::cli
