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
  std::string line = fmt::format("\r\x1b[K{}: {}", what_, done_);
  if (total_ > 0) {
    line += fmt::format("/{} {}", total_, unit_);
    if (done_ > 0 && seconds > 1) {
      const double left = seconds / static_cast<double>(done_) * static_cast<double>(total_ - done_);
      line += fmt::format(", {:.0f} s left", left);
    }
  } else {
    line += fmt::format(" {}", unit_);
  }
  std::fputs(line.c_str(), stderr);
}

}  // namespace nibble
