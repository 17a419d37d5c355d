#ifndef NIBBLE_CLI_INPUT_H_
#define NIBBLE_CLI_INPUT_H_

// Text that comes from a file or from stdin.

#include <string>

#include "nibble/base/error.h"
#include "nibble/base/json.h"

namespace nibble::cli {

bool stdin_is_terminal();

// All of a file; all of stdin for "" and "-". Ctrl-C while waiting for stdin is kCancelled.
Expected<std::string> read_input(const std::string& file);

// As above, without one newline at the end: the one that `echo` and editors add.
Expected<std::string> read_prompt(const std::string& file);

Expected<Json> read_json_file(const std::string& file);

// Line after line of a file or of stdin, as they arrive. One thread at a time.
class LineReader {
 public:
  static Expected<LineReader> open(const std::string& file);  // "" and "-": stdin
  LineReader(LineReader&& other) noexcept;
  LineReader& operator=(LineReader&&) = delete;
  ~LineReader();

  // False at the end. `line` comes without its newline.
  Expected<bool> next(std::string& line);
  const std::string& name() const { return name_; }

 private:
  LineReader(std::string name, int fd) : name_(std::move(name)), fd_(fd) {}

  std::string name_;
  int fd_;
  std::string buffer_;  // read and not given out yet, from begin_ on
  size_t begin_ = 0;
  bool at_end_ = false;
};

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_INPUT_H_
