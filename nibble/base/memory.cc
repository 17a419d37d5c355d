#include "nibble/base/memory.h"

#include <fstream>
#include <string_view>

#include <fmt/format.h>

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

std::string human_bytes(size_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= 10'000'000'000) return fmt::format("{:.0f} GB", value / 1e9);
  if (bytes >= 1'000'000'000) return fmt::format("{:.1f} GB", value / 1e9);
  if (bytes >= 10'000'000) return fmt::format("{:.0f} MB", value / 1e6);
  if (bytes >= 1'000'000) return fmt::format("{:.1f} MB", value / 1e6);
  if (bytes >= 1'000) return fmt::format("{:.0f} kB", value / 1e3);
  return fmt::format("{} bytes", bytes);
}

}  // namespace nibble
