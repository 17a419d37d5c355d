#include "nibble/cli/doctor_features.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace nibble::cli {
namespace {

struct Row {
  std::string_view name;
  std::vector<std::string_view> flags;    // all of them are needed
  std::vector<std::string_view> targets;  // instruction sets (cpu_target_name) whose kernels use it
  bool arm = false;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> kRows = {
      {"avx2", {"avx2", "fma", "f16c"}, {"avx2", "avxvnni", "avx512", "amx"}},
      {"avx-vnni", {"avx_vnni"}, {"avxvnni"}},
      {"avx512", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}, {"avx512", "amx"}},
      {"avx512-vnni", {"avx512_vnni"}, {"avx512", "amx"}},
      {"avx512-vbmi", {"avx512vbmi"}, {"avx512", "amx"}},
      {"avx512-bf16", {"avx512_bf16"}, {}},
      {"avx512-fp16", {"avx512_fp16"}, {}},
      {"amx-int8", {"amx_tile", "amx_int8"}, {"amx"}},
      {"amx-bf16", {"amx_tile", "amx_bf16"}, {}},
      {"neon", {"asimd"}, {"neon", "dotprod", "i8mm"}, true},
      {"dotprod", {"asimddp"}, {"dotprod"}, true},
      {"i8mm", {"i8mm"}, {"i8mm"}, true},
  };
  return kRows;
}

constexpr std::array<std::pair<FeatureState, std::string_view>, 4> kStates = {
    {{FeatureState::kUsed, "used"},
     {FeatureState::kPassedOver, "found, other kernels run"},
     {FeatureState::kNoKernel, "found, no kernel uses it"},
     {FeatureState::kNotFound, "not found"}}};

bool contains(const auto& values, std::string_view wanted) {
  return std::any_of(values.begin(), values.end(), [&](const auto& value) { return value == wanted; });
}

FeatureState state_of(const Row& row, const std::vector<std::string>& flags,
                      std::span<const CpuTarget> supported, CpuTarget used) {
  const auto found = [&](std::string_view flag) { return contains(flags, flag); };
  if (!std::all_of(row.flags.begin(), row.flags.end(), found)) return FeatureState::kNotFound;
  if (contains(row.targets, cpu_target_name(used))) return FeatureState::kUsed;
  const auto has_kernels = [&](CpuTarget target) { return contains(row.targets, cpu_target_name(target)); };
  return std::any_of(supported.begin(), supported.end(), has_kernels) ? FeatureState::kPassedOver
                                                                      : FeatureState::kNoKernel;
}

}  // namespace

std::vector<CpuFeature> cpu_features(const std::vector<std::string>& flags,
                                     std::span<const CpuTarget> supported, CpuTarget used) {
  const bool arm = contains(flags, "asimd");
  std::vector<CpuFeature> features;
  for (const Row& row : rows()) {
    if (row.arm == arm) features.push_back({row.name, state_of(row, flags, supported, used)});
  }
  return features;
}

std::string to_text(const std::vector<CpuFeature>& features) {
  std::string text;
  for (const auto& [state, words] : kStates) {
    std::vector<std::string_view> names;
    for (const CpuFeature& feature : features) {
      if (feature.state == state) names.push_back(feature.name);
    }
    if (!names.empty())
      text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", words, fmt::join(names, " "));
  }
  return text;
}

Json to_json(const std::vector<CpuFeature>& features) {
  Json json = Json::array();
  for (const CpuFeature& feature : features) {
    const auto words = std::find_if(kStates.begin(), kStates.end(),
                                    [&](const auto& state) { return state.first == feature.state; });
    json.push_back({{"name", feature.name}, {"state", words->second}});
  }
  return json;
}

}  // namespace nibble::cli
