#include <set>
#include <system_error>

#include "nibble/base/cpu_target.h"
#include "nibble/base/sha256.h"
#include "nibble/linalg/gemm.h"
#include "nibble/pipeline/run.h"

namespace nibble {
namespace {

// Size and time of last change: hashing a model of many gigabytes would take longer than some runs.
Json describe_files(const ModelSource& source) {
  Json files = Json::object();
  const auto folder = source.files.gguf.empty() ? source.files.folder : source.files.gguf.parent_path();
  std::set<std::string> names;
  for (const auto& tensor : source.checkpoint->tensors()) {
    names.insert(source.checkpoint->file_of(tensor.first));
  }
  for (const std::string& name : names) files[name] = file_state(folder / name);
  return files;
}

}  // namespace

Expected<Json> describe_run(const ModelSource& source, const Jobs& jobs, const QuantizeOptions& options,
                            const QuantizePlan& plan, const CalibrationData& data) {
  Json run;
  run["nibble"] = NIBBLE_VERSION;
  run["model"] = {{"config_sha256", sha256(dump_json(source.config.json))},
                  {"files", describe_files(source)}};
  run["quantization_config"] = to_json(jobs.config);
  Json settings = {{"max_shard_size", options.max_shard_size}};
  if (const bool bnb = std::holds_alternative<BitsAndBytesConfig>(jobs.config); bnb) {
    settings["blocksize"] = options.bnb_blocksize;
  } else {
    settings["mse"] = options.mse;
    settings["signed_scales"] = options.signed_scales;
    settings["effort"] = options.round_to_nearest ? std::string_view("rtn") : effort_name(options.effort);
    if (options.solver) {
      settings["solver"] = {options.solver->grid_candidates, options.solver->grid_simulations,
                            options.solver->refine_rounds, options.solver->group_sweeps};
    }
  }
  if (!data.sequences.empty()) {
    settings["tokens_at_once"] = plan.tokens_at_once;
    settings["arithmetic"] =
        options.compute == ComputeMode::kF32 || linalg::fastest_arithmetic() == linalg::Arithmetic::kF32
            ? "f32"
            : "int16";
    settings["damp_percent"] = options.damp_percent ? Json(*options.damp_percent) : Json("by tokens");
    run["data"] = {
        {"sha256", data.sha256}, {"sequences", data.sequences.size()}, {"tokens", data.num_tokens()}};
  }
  // Sums are ordered by the width of its vectors.
  settings["cpu"] = cpu_target_name(cpu_target());
  run["settings"] = settings;
  return run;
}

Status check_unchanged(const ModelSource& source, const Json& run) {
  const std::vector<std::string> lines = differences(run["model"]["files"], describe_files(source));
  if (lines.empty()) return {};
  return fail(ErrorCode::kDataLoss, "the model's files have changed while they were read:\n  {}",
              fmt::join(lines, "\n  "))
      .at(source.files.name)
      .with_fix("Start anew with --overwrite once they stand still.");
}

}  // namespace nibble
