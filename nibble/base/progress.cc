#include "nibble/base/progress.h"

#include <cstdio>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "nibble/base/log.h"

namespace nibble {

Progress::Progress(std::string what, size_t total, std::string unit)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      shown_(log_level() >= LogLevel::kNormal && ::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      last_draw_(start_) {}

Progress::~Progress() {
  if (shown_) std::fputs("\r\x1b[K", stderr);
}

void Progress::advance(size_t amount) {
  done_ += amount;
  if (!shown_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_draw_ < std::chrono::milliseconds(100)) return;
  last_draw_ = now;
  draw();
}

void Progress::draw() {
  const double seconds = std::chrono::duration<double>(last_draw_ - start_).count();
  const double share = total_ == 0 ? 0.0 : static_cast<double>(done_) / static_cast<double>(total_);
  std::string line = fmt::format("\r\x1b[K{}: ", what_);
  if (unit_.empty()) {
    line += fmt::format("{:.0f} %", 100 * share);
  } else {
    line += total_ > 0 ? fmt::format("{}/{} {}", done_, total_, unit_) : fmt::format("{} {}", done_, unit_);
  }
  if (share > 0 && seconds > 1) line += fmt::format(", {:.0f} s left", seconds / share - seconds);
  std::fputs(line.c_str(), stderr);
}

}  // namespace nibble
