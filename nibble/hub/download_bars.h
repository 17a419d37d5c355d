#ifndef NIBBLE_HUB_DOWNLOAD_BARS_H_
#define NIBBLE_HUB_DOWNLOAD_BARS_H_

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// A bar on stderr for each file that is being fetched, and a line for all of them. On a terminal only, and
// never with -q. Any thread.
class DownloadBars {
 public:
  // `lines`: how many files are fetched at once; bytes_there: of total_bytes, before it begins.
  DownloadBars(size_t lines, uint64_t total_bytes, uint64_t bytes_there, bool shown);
  ~DownloadBars();  // clears the lines
  DownloadBars(const DownloadBars&) = delete;
  DownloadBars& operator=(const DownloadBars&) = delete;

  void begin(size_t line, std::string_view name, uint64_t size, uint64_t there);
  void set(size_t line, uint64_t there);
  void note(size_t line, std::string_view why);  // stands there until bytes come again
  void end(size_t line);

 private:
  using Clock = std::chrono::steady_clock;
  struct Line {
    std::string name;  // empty: nothing to draw
    std::string note;
    uint64_t size = 0;
    uint64_t first = 0;  // there when it began
    uint64_t there = 0;
    Clock::time_point start;
  };

  void draw_if_due(bool now);
  std::string text_of(const Line& line, Clock::time_point now, size_t width) const;
  void clear();

  const bool shown_;
  const uint64_t total_bytes_;
  uint64_t done_bytes_;  // of all files, those that are finished too
  uint64_t received_ = 0;
  const Clock::time_point start_;
  std::mutex mutex_;  // guards what follows and the terminal
  std::vector<Line> lines_;
  Clock::time_point last_draw_;
  size_t drawn_ = 0;  // lines on the terminal
};

// "1.5 GB", "300 kB", "12 bytes".
std::string size_text(uint64_t bytes);

}  // namespace nibble

#endif  // NIBBLE_HUB_DOWNLOAD_BARS_H_
