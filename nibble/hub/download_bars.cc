#include "nibble/hub/download_bars.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "nibble/base/log.h"

namespace nibble {
namespace {

constexpr std::chrono::milliseconds kRedraw{100};

size_t terminal_width() {
  winsize size = {};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20;
  return known ? size.ws_col : 80;
}

std::string bar(uint64_t done, uint64_t total) {
  constexpr size_t kWidth = 20;
  const double share = total == 0 ? 1 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const size_t filled = static_cast<size_t>(share * kWidth);
  return fmt::format("[{}{}] {:3.0f} %", std::string(filled, '#'), std::string(kWidth - filled, ' '),
                     100 * share);
}

std::string duration_text(double seconds) {
  if (seconds < 120) return fmt::format("{:.0f} s", seconds);
  if (seconds < 7200) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

// "35 MB/s, 40 s left", once there is something to tell from.
std::string speed_text(uint64_t received, uint64_t missing, double seconds) {
  if (received == 0 || seconds < 1) return {};
  const double rate = static_cast<double>(received) / seconds;
  return fmt::format("{}/s, {} left", size_text(static_cast<uint64_t>(rate)),
                     duration_text(static_cast<double>(missing) / rate));
}

}  // namespace

std::string size_text(uint64_t bytes) {
  if (bytes < 1000) return fmt::format("{} bytes", bytes);
  constexpr std::array<std::string_view, 5> kUnits = {"kB", "MB", "GB", "TB", "PB"};
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  for (; value >= 999.5 && unit + 1 < kUnits.size(); ++unit) value /= 1000;
  return value < 9.95 ? fmt::format("{:.1f} {}", value, kUnits[unit])
                      : fmt::format("{:.0f} {}", value, kUnits[unit]);
}

DownloadBars::DownloadBars(size_t lines, uint64_t total_bytes, uint64_t bytes_there, bool shown)
    : shown_(shown && log_level() >= LogLevel::kNormal && ::isatty(STDERR_FILENO) == 1),
      total_bytes_(total_bytes),
      done_bytes_(bytes_there),
      start_(Clock::now()),
      lines_(lines),
      last_draw_(start_) {}

DownloadBars::~DownloadBars() {
  const std::lock_guard lock(mutex_);
  clear();
}

void DownloadBars::begin(size_t line, std::string_view name, uint64_t size, uint64_t there) {
  const std::lock_guard lock(mutex_);
  lines_[line] = {std::string(name), {}, size, there, there, Clock::now()};
  draw_if_due(true);
}

void DownloadBars::set(size_t line, uint64_t there) {
  const std::lock_guard lock(mutex_);
  Line& l = lines_[line];
  if (there >= l.there) {
    done_bytes_ += there - l.there;
    received_ += there - l.there;
  } else {  // it began anew
    done_bytes_ -= std::min(done_bytes_, l.there - there);
    l.first = std::min(l.first, there);
  }
  l.there = there;
  l.note.clear();
  draw_if_due(false);
}

void DownloadBars::note(size_t line, std::string_view why) {
  const std::lock_guard lock(mutex_);
  lines_[line].note = why;
  draw_if_due(true);
}

void DownloadBars::end(size_t line) {
  const std::lock_guard lock(mutex_);
  lines_[line] = {};
  draw_if_due(true);
}

std::string DownloadBars::text_of(const Line& line, Clock::time_point now, size_t width) const {
  const double seconds = std::chrono::duration<double>(now - line.start).count();
  const std::string right =
      line.note.empty()
          ? speed_text(line.there - line.first, line.size - std::min(line.size, line.there), seconds)
          : line.note;
  std::string name = line.name;
  constexpr size_t kNameWidth = 36;  // the end of a shard's name tells it apart
  if (name.size() > kNameWidth) name = "..." + name.substr(name.size() - (kNameWidth - 3));
  return fmt::format("{:<36} {} {}", name, bar(line.there, line.size), right).substr(0, width);
}

void DownloadBars::clear() {
  if (drawn_ == 0) return;
  fmt::print(stderr, "\x1b[{}F\x1b[J", drawn_);  // up to the first of the lines; what is below goes
  drawn_ = 0;
}

void DownloadBars::draw_if_due(bool now) {
  if (!shown_) return;
  const auto time = Clock::now();
  if (!now && time - last_draw_ < kRedraw) return;
  last_draw_ = time;
  clear();
  const size_t width = terminal_width() - 1;
  std::string text;
  for (const Line& line : lines_) {
    if (line.name.empty()) continue;
    text += text_of(line, time, width) + "\n";
    ++drawn_;
  }
  const double seconds = std::chrono::duration<double>(time - start_).count();
  const std::string all =
      fmt::format("{} of {}  {}", size_text(done_bytes_), size_text(total_bytes_),
                  speed_text(received_, total_bytes_ - std::min(total_bytes_, done_bytes_), seconds));
  text +=
      fmt::format("{:<36} {} {}", "all files", bar(done_bytes_, total_bytes_), all).substr(0, width) + "\n";
  ++drawn_;
  std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace nibble
