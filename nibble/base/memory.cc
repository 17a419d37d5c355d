#include "nibble/base/memory.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string_view>
#include <utility>

#include <malloc.h>

#include <fmt/format.h>

#include "nibble/base/cgroup.h"

namespace nibble {
namespace {

// The value of a line like "VmHWM:   123 kB".
size_t proc_kilobytes(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    return static_cast<size_t>(std::strtoull(line.c_str() + key.size(), nullptr, 10)) * 1024;
  }
  return 0;
}

}  // namespace

size_t peak_memory_bytes() { return proc_kilobytes("/proc/self/status", "VmHWM:"); }

bool reset_peak_memory() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;  // proc(5)
  return file.good();
}

size_t available_memory_bytes() {
  const size_t machine = proc_kilobytes("/proc/meminfo", "MemAvailable:");
  const std::optional<size_t> left = read_cgroup_limits().memory_left_bytes();
  return left ? std::min(machine, *left) : machine;
}

void return_freed_memory() {
#if defined(__GLIBC__)
  constexpr int kBlock = 1 << 20;
  ::mallopt(M_MMAP_THRESHOLD, kBlock);
  ::mallopt(M_TRIM_THRESHOLD, 2 * kBlock);  // what is free at the end of the heap
#endif
}

std::string human_bytes(size_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= 10'000'000'000) return fmt::format("{:.0f} GB", value / 1e9);
  if (bytes >= 1'000'000'000) return fmt::format("{:.1f} GB", value / 1e9);
  if (bytes >= 10'000'000) return fmt::format("{:.0f} MB", value / 1e6);
  if (bytes >= 1'000'000) return fmt::format("{:.1f} MB", value / 1e6);
  if (bytes >= 1'000) return fmt::format("{:.0f} kB", value / 1e3);
  return fmt::format("{} bytes", bytes);
}

Expected<size_t> parse_bytes(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, double>, 11> kUnits = {{{"", 1e0},
                                                                           {"B", 1e0},
                                                                           {"K", 1e3},
                                                                           {"KB", 1e3},
                                                                           {"M", 1e6},
                                                                           {"MB", 1e6},
                                                                           {"G", 1e9},
                                                                           {"GB", 1e9},
                                                                           {"KIB", 1024.0},
                                                                           {"MIB", 1048576.0},
                                                                           {"GIB", 1073741824.0}}};
  const std::string copy(text);
  char* end = nullptr;
  const double value = std::strtod(copy.c_str(), &end);
  std::string unit(end);
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  for (const auto& [name, factor] : kUnits) {
    if (unit == name && value > 0 && value * factor < 1e18) return static_cast<size_t>(value * factor);
  }
  return fail(ErrorCode::kInvalidArgument, "\"{}\" is not a size", text)
      .with_fix("Write it as 8GB or 500MiB.");
}

}  // namespace nibble
