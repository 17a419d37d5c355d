#ifndef NIBBLE_BASE_PROGRESS_H_
#define NIBBLE_BASE_PROGRESS_H_

#include <chrono>
#include <cstddef>
#include <string>

namespace nibble {

// One line on stderr that says what is being done, how far it is and how long it will take. Shown
// only on a terminal and never with -q; a pipe or a log file sees nothing of it.
class Progress {
 public:
  // unit: "tensors", "tokens"; empty: amounts mean nothing to people and are shown in percent of total.
  // total 0: not known.
  Progress(std::string what, size_t total, std::string unit);
  ~Progress();  // clears the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(size_t amount = 1);

 private:
  void draw();

  const std::string what_;
  const std::string unit_;
  const size_t total_;
  const bool shown_;
  const std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_draw_;
  size_t done_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_BASE_PROGRESS_H_
