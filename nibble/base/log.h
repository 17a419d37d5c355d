#ifndef NIBBLE_BASE_LOG_H_
#define NIBBLE_BASE_LOG_H_

// Messages for people, on stderr. Results go to stdout and never pass through here. Any thread.

#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

namespace nibble {

enum class LogLevel { kQuiet, kNormal, kVerbose };  // -q, default, -v

void set_log_level(LogLevel level);
LogLevel log_level();

void log_line(LogLevel needed, std::string_view text);

// For -v: what was found, chosen, and why.
template <class... Args>
void log_verbose(fmt::format_string<Args...> text, Args&&... args) {
  if (log_level() >= LogLevel::kVerbose) {
    log_line(LogLevel::kVerbose, fmt::format(text, std::forward<Args>(args)...));
  }
}

// "warning: ..." once per distinct text, however often it is said. Kept, so that --json can
// repeat it.
void warn_once(std::string_view text);
std::vector<std::string> warnings();

template <class... Args>
void warn(fmt::format_string<Args...> text, Args&&... args) {
  warn_once(fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace nibble

#endif  // NIBBLE_BASE_LOG_H_
