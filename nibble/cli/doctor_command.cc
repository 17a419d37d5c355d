#include <memory>

#include "nibble/base/cancel.h"
#include "nibble/checkpoint/hub_cache.h"
#include "nibble/cli/build_info.h"
#include "nibble/cli/command.h"
#include "nibble/cli/doctor_report.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"

namespace nibble::cli {
namespace {

struct DoctorArguments {
  CommonOptions common;
  ModelOption model;  // may be left out
  LoadOptions load;
  bool no_measure = false;
};

Expected<std::optional<ModelKernels>> look_at_model(const DoctorArguments& options, ThreadPool& pool) {
  if (options.model.model.empty()) return std::nullopt;
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_TRY(const FromPretrainedOptions load, options.load.to_from_pretrained(options.model.revision));
  NIBBLE_TRY(ModelKernels kernels, look_at_kernels(options.model.model, load, pool));
  return kernels;
}

Status run_doctor(const DoctorArguments& options) {
  DoctorReport report;
  report.machine = read_machine();
  report.targets_found.assign(supported_cpu_targets().begin(), supported_cpu_targets().end());
  report.target_used = cpu_target();
  report.features = cpu_features(report.machine.cpu_features, supported_cpu_targets(), report.target_used);
  report.cache = look_at_cache(hub_cache());
  report.version = NIBBLE_VERSION;
  report.compiler = compiler_name();
  report.libc = libc_name();
  report.optimized = is_optimized();
  ThreadPool pool(options.common.num_threads());
  report.threads = pool.num_threads();
  NIBBLE_TRY(report.model, look_at_model(options, pool));
  if (!options.no_measure) {
    const size_t buffer = linalg::probe_buffer_bytes(report.machine.last_level_cache_bytes(),
                                                     report.machine.usable_memory_bytes());
    report.speed = linalg::measure_machine({.buffer_bytes = buffer}, pool);
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
  }
  return options.common.json ? write_json(to_json(report)) : write_stdout(to_text(report));
}

Action define_doctor(CLI::App& app) {
  const auto options = std::make_shared<DoctorArguments>();
  add_model_option(app, options->model);
  add_load_options(app, options->load);
  app.add_flag("--no-measure", options->no_measure, "Leave out the speed of memory and arithmetic");
  add_common_options(app, options->common, "Print the report as JSON");
  return [options] { return run_doctor(*options); };
}

}  // namespace

const Command kDoctorCommand = {
    .name = "doctor",
    .summary = "Say what this machine is, what it can do, and which kernels a model gets on it",
    .examples =
        "  nibble doctor\n"
        "  nibble doctor ./model --no-measure\n"
        "  nibble doctor --json > machine.json",
    .define = define_doctor,
};

}  // namespace nibble::cli
