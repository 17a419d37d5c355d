#include "nibble/kernels/cpu_target.h"

#include <array>
#include <cstdlib>
#include <optional>

namespace nibble {
namespace {

constexpr std::array kTargets = {CpuTarget::kScalar, CpuTarget::kAvx2, CpuTarget::kAvx512};

CpuTarget detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  if (avx512) return CpuTarget::kAvx512;
  if (avx2) return CpuTarget::kAvx2;
#endif
  return CpuTarget::kScalar;
}

std::optional<CpuTarget> target_from_name(std::string_view name) {
  for (const CpuTarget target : kTargets) {
    if (cpu_target_name(target) == name) return target;
  }
  return std::nullopt;
}

Expected<CpuTarget> choose() {
  const CpuTarget best = detect();
  const char* const request = std::getenv("NIBBLE_CPU");
  if (request == nullptr || *request == '\0') return best;
  const auto target = target_from_name(request);
  if (!target) {
    return fail(ErrorCode::kInvalidArgument, "NIBBLE_CPU=\"{}\" is not an instruction set", request)
        .with_fix("Use scalar, avx2 or avx512, or unset it.");
  }
  if (*target > best) {
    return fail(ErrorCode::kUnsupported, "NIBBLE_CPU={}, but this machine has {} at most", request,
                cpu_target_name(best))
        .with_fix("Unset NIBBLE_CPU.");
  }
  return *target;
}

}  // namespace

std::string_view cpu_target_name(CpuTarget target) {
  switch (target) {
    case CpuTarget::kScalar:
      return "scalar";
    case CpuTarget::kAvx2:
      return "avx2";
    case CpuTarget::kAvx512:
      return "avx512";
  }
  return "";
}

std::span<const CpuTarget> supported_cpu_targets() {
  static const size_t count = static_cast<size_t>(detect()) + 1;
  return std::span(kTargets).first(count);
}

CpuTarget cpu_target() {
  static const CpuTarget target = choose().value_or(detect());
  return target;
}

Status check_cpu_request() {
  NIBBLE_TRY([[maybe_unused]] const CpuTarget target, choose());
  return {};
}

}  // namespace nibble
