#include "nibble/cli/input.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "nibble/base/cancel.h"

namespace nibble::cli {
namespace {

constexpr size_t kMaxInputBytes = size_t{1} << 30;

Expected<int> open_file(const std::string& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd >= 0) return fd;
  const ErrorCode code = errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kUnavailable;
  return fail(code, "cannot open: {}", std::strerror(errno)).at(file);
}

// Appends what there is; false at the end.
Expected<bool> read_more(int fd, const std::string& name, std::string& out) {
  std::array<char, 1 << 16> chunk;
  while (true) {
    // A signal that only sets a flag must not leave us waiting for more input.
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    const ssize_t count = ::read(fd, chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(ErrorCode::kUnavailable, "cannot read: {}", std::strerror(errno)).at(name);
    if (count == 0) return false;
    if (out.size() + static_cast<size_t>(count) > kMaxInputBytes) {
      return fail(ErrorCode::kInvalidArgument, "more than {} bytes of input", kMaxInputBytes).at(name);
    }
    out.append(chunk.data(), static_cast<size_t>(count));
    return true;
  }
}

}  // namespace

bool stdin_is_terminal() { return ::isatty(STDIN_FILENO) == 1; }

// Also pipes and devices: -f <(command).
Expected<std::string> read_input(const std::string& file) {
  const bool from_stdin = file.empty() || file == "-";
  const std::string name = from_stdin ? "stdin" : file;
  NIBBLE_TRY(const int fd, from_stdin ? Expected<int>(STDIN_FILENO) : open_file(file));
  std::string text;
  while (true) {
    const auto more = read_more(fd, name, text);
    if (more && *more) continue;
    if (!from_stdin) ::close(fd);
    if (!more) return Failure(more.error());
    return text;
  }
}

Expected<std::string> read_prompt(const std::string& file) {
  NIBBLE_TRY(std::string text, read_input(file));
  if (!text.empty() && text.back() == '\n') text.pop_back();
  if (!text.empty() && text.back() == '\r') text.pop_back();
  return text;
}

Expected<Json> read_json_file(const std::string& file) {
  NIBBLE_TRY(const std::string text, read_input(file));
  return at(file, parse_json(text));
}

Expected<LineReader> LineReader::open(const std::string& file) {
  if (file.empty() || file == "-") return LineReader("stdin", STDIN_FILENO);
  NIBBLE_TRY(const int fd, open_file(file));
  return LineReader(file, fd);
}

LineReader::LineReader(LineReader&& other) noexcept
    : name_(std::move(other.name_)),
      fd_(std::exchange(other.fd_, -1)),
      buffer_(std::move(other.buffer_)),
      begin_(other.begin_),
      at_end_(other.at_end_) {}

LineReader::~LineReader() {
  if (fd_ > STDERR_FILENO) ::close(fd_);
}

Expected<bool> LineReader::next(std::string& line) {
  size_t searched = begin_;
  while (true) {
    const size_t newline = buffer_.find('\n', searched);
    if (newline != std::string::npos) {
      line.assign(buffer_, begin_, newline - begin_);
      begin_ = newline + 1;
      return true;
    }
    if (at_end_) {
      line.assign(buffer_, begin_);
      begin_ = buffer_.size();
      return !line.empty();
    }
    buffer_.erase(0, begin_);
    begin_ = 0;
    searched = buffer_.size();
    NIBBLE_TRY(const bool more, read_more(fd_, name_, buffer_));
    at_end_ = !more;
  }
}

}  // namespace nibble::cli
