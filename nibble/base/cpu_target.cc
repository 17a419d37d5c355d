#include "nibble/base/cpu_target.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <vector>

#include <fmt/ranges.h>

#include "nibble/base/simd_region.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace nibble {
namespace {

#if defined(__aarch64__)
constexpr std::array kTargets = {CpuTarget::kScalar, CpuTarget::kNeon, CpuTarget::kDotprod, CpuTarget::kI8mm};
#else
constexpr std::array kTargets = {CpuTarget::kScalar, CpuTarget::kAvx2, CpuTarget::kAvxVnni,
                                 CpuTarget::kAvx512, CpuTarget::kAmx};
#endif

#if defined(__x86_64__)
// gcc 12 and clang 14 do not know its name. Leaf 7.1, EAX bit 4.
bool has_avx_vnni() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & 1u << 4) != 0;
}

// The processor has tiles of bytes (leaf 7.0, EDX bits 24 and 25), the system saves them (register XCR0, bits
// 17 and 18), and grants their 8 KB of every thread's state to this process, for which it wants to be asked.
bool has_amx() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned kSystemUsesXsave = 1u << 27;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kSystemUsesXsave) == 0) return false;
  constexpr unsigned kTilesOfBytes = 3u << 24;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kTilesOfBytes) != kTilesOfBytes)
    return false;
  asm("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  constexpr unsigned kTileState = 3u << 17;
  if ((eax & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

bool is_supported(CpuTarget target) {
  if (target == CpuTarget::kScalar) return true;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (target == CpuTarget::kAvx2) return avx2;
  if (target == CpuTarget::kAvxVnni) return avx2 && has_avx_vnni();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  return target == CpuTarget::kAmx ? avx512 && has_amx() : avx512;
#elif defined(__aarch64__)
  // Bits of the Linux kernel's interface; the C library's headers may be older than the processor.
  constexpr unsigned long kHwcapDotprod = 1ul << 20;
  constexpr unsigned long kHwcap2I8mm = 1ul << 13;
  const bool dotprod = (getauxval(AT_HWCAP) & kHwcapDotprod) != 0;
  if (target == CpuTarget::kDotprod) return NIBBLE_ARM_DOT && dotprod;
  if (target == CpuTarget::kI8mm)
    return NIBBLE_ARM_DOT && dotprod && (getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0;
  return target == CpuTarget::kNeon;
#else
  return false;
#endif
}

std::optional<CpuTarget> target_from_name(std::string_view name) {
  for (const CpuTarget target : kTargets) {
    if (cpu_target_name(target) == name) return target;
  }
  return std::nullopt;
}

Expected<CpuTarget> choose() {
  const CpuTarget best = supported_cpu_targets().back();
  const char* const request = std::getenv("NIBBLE_CPU");
  if (request == nullptr || *request == '\0') return best;
  const auto target = target_from_name(request);
  if (!target) {
    std::vector<std::string_view> names;
    for (const CpuTarget known : kTargets) names.push_back(cpu_target_name(known));
    return fail(ErrorCode::kInvalidArgument, "NIBBLE_CPU=\"{}\" is not an instruction set", request)
        .with_fix(fmt::format("Use {}, or unset it.", fmt::join(names, ", ")));
  }
  if (!is_supported(*target)) {
    return fail(ErrorCode::kUnsupported, "NIBBLE_CPU={}, but this machine lacks it; its best is {}", request,
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
    case CpuTarget::kAvxVnni:
      return "avxvnni";
    case CpuTarget::kAvx512:
      return "avx512";
    case CpuTarget::kAmx:
      return "amx";
    case CpuTarget::kNeon:
      return "neon";
    case CpuTarget::kDotprod:
      return "dotprod";
    case CpuTarget::kI8mm:
      return "i8mm";
  }
  return "";
}

std::span<const CpuTarget> supported_cpu_targets() {
  static const std::vector<CpuTarget> supported = [] {
    std::vector<CpuTarget> targets;
    std::ranges::copy_if(kTargets, std::back_inserter(targets), is_supported);
    return targets;
  }();
  return supported;
}

CpuTarget cpu_target() {
  static const CpuTarget target = choose().value_or(supported_cpu_targets().back());
  return target;
}

Status check_cpu_request() {
  NIBBLE_TRY([[maybe_unused]] const CpuTarget target, choose());
  return {};
}

}  // namespace nibble
