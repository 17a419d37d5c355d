#ifndef NIBBLE_CLI_DOCTOR_REPORT_H_
#define NIBBLE_CLI_DOCTOR_REPORT_H_

// What `nibble doctor` says of a machine: all that a bug report needs, and what would make it faster.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "nibble/base/cpu_target.h"
#include "nibble/base/json.h"
#include "nibble/base/machine.h"
#include "nibble/cli/doctor_features.h"
#include "nibble/cli/doctor_model.h"
#include "nibble/linalg/machine_speed.h"

namespace nibble::cli {

// A folder where models are kept.
struct CacheFolder {
  std::filesystem::path path;
  bool exists = false;
  size_t models = 0;
  size_t free_bytes = 0;  // of its disk; 0 where unknown
};

struct DoctorReport {
  Machine machine;
  std::vector<CpuTarget> targets_found = {CpuTarget::kScalar};  // what this CPU has, slowest first
  CpuTarget target_used = CpuTarget::kScalar;
  std::vector<CpuFeature> features = {};
  size_t threads = 1;                              // that this process may use
  std::optional<linalg::MachineSpeed> speed = {};  // nothing: not measured
  std::optional<ModelKernels> model = {};          // nothing: none was named
  CacheFolder cache;
  std::string version, compiler, libc;
  bool optimized = true;
};

CacheFolder look_at_cache(const std::filesystem::path& path);

// One line for each thing that would make Nibble faster here, and how to change it; empty if there is none.
std::vector<std::string> advice_for(const DoctorReport& report);

Json to_json(const DoctorReport& report);
std::string to_text(const DoctorReport& report);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_DOCTOR_REPORT_H_
