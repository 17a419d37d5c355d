#include <memory>

#include "nibble/base/cancel.h"
#include "nibble/checkpoint/hub_cache.h"
#include "nibble/cli/build_info.h"
#include "nibble/cli/command.h"
#include "nibble/cli/doctor_report.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"

namespace nibble::cli {
namespace {

struct Options {
  CommonOptions common;
  bool no_measure = false;
};

Status run(const Options& options) {
  DoctorReport report;
  report.machine = read_machine();
  report.target_found = supported_cpu_targets().back();
  report.target_used = cpu_target();
  report.cache = look_at_cache(hub_cache());
  report.version = NIBBLE_VERSION;
  report.compiler = compiler_name();
  report.libc = libc_name();
  report.optimized = is_optimized();
  ThreadPool pool(options.common.num_threads());
  report.threads = pool.num_threads();
  if (!options.no_measure) {
    const size_t buffer = linalg::probe_buffer_bytes(report.machine.last_level_cache_bytes(),
                                                     report.machine.usable_memory_bytes());
    report.speed = linalg::measure_machine({.buffer_bytes = buffer}, pool);
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
  }
  return options.common.json ? write_json(to_json(report)) : write_stdout(to_text(report));
}

Action define(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  app.add_flag("--no-measure", options->no_measure, "Leave out the speed of memory and arithmetic");
  add_common_options(app, options->common, "Print the report as JSON");
  return [options] { return run(*options); };
}

}  // namespace

const Command kDoctorCommand = {
    .name = "doctor",
    .summary = "Say what this machine is, what it can do, and what would make it faster",
    .examples =
        "  nibble doctor\n"
        "  nibble doctor --json > machine.json",
    .define = define,
};

}  // namespace nibble::cli
