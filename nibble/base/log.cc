#include "nibble/base/log.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>

#include "nibble/base/printable.h"

namespace nibble {
namespace {

std::atomic<LogLevel> g_level = LogLevel::kNormal;
std::mutex g_mutex;
std::vector<std::string> g_warnings;  // guarded by g_mutex

}  // namespace

void set_log_level(LogLevel level) { g_level = level; }
LogLevel log_level() { return g_level; }

void log_line(LogLevel needed, std::string_view text) {
  if (g_level < needed) return;
  const std::string line = fmt::format("{}\n", printable(text));
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void warn_once(std::string_view text) {
  {
    const std::lock_guard lock(g_mutex);
    if (std::find(g_warnings.begin(), g_warnings.end(), text) != g_warnings.end()) return;
    g_warnings.emplace_back(text);
  }
  log_line(LogLevel::kNormal, fmt::format("warning: {}", text));
}

std::vector<std::string> warnings() {
  const std::lock_guard lock(g_mutex);
  return g_warnings;
}

}  // namespace nibble
