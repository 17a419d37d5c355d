#ifndef NIBBLE_CLI_DOCTOR_FEATURES_H_
#define NIBBLE_CLI_DOCTOR_FEATURES_H_

// The instructions that matter for kernels: which this processor has, and whether Nibble uses them.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/cpu_target.h"
#include "nibble/base/json.h"

namespace nibble::cli {

enum class FeatureState {
  kUsed,
  kPassedOver,  // there, with kernels; the ones that run use others
  kNoKernel,    // there, but this build has no kernel for it
  kNotFound,
};

struct CpuFeature {
  std::string_view name;  // "avx512-vnni"
  FeatureState state;
};

// flags: as /proc/cpuinfo spells them (Machine::cpu_features); those of ARM are listed on an ARM processor
// only.
std::vector<CpuFeature> cpu_features(const std::vector<std::string>& flags,
                                     std::span<const CpuTarget> supported, CpuTarget used);

std::string to_text(const std::vector<CpuFeature>& features);  // "used avx2 avx512; not found amx-int8"
Json to_json(const std::vector<CpuFeature>& features);         // [{"name", "state"}]

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_DOCTOR_FEATURES_H_
