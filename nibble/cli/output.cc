#include "nibble/cli/output.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include <sys/ioctl.h>
#include <unistd.h>

#include "nibble/base/atomic_file.h"

namespace nibble::cli {
namespace fs = std::filesystem;
namespace {

// The main thread alone writes results.
bool g_reader_is_gone = false;
int g_result_status = 0;
Json g_error_attachments = Json::object();

std::string name_of(const fs::path& path) { return path.string(); }

bool same_place(const fs::path& a, const fs::path& b) {
  if (a.empty() || b.empty()) return false;
  std::error_code error;
  return fs::equivalent(a, b, error) && !error;
}

}  // namespace

Status write_stdout(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      g_reader_is_gone = errno == EPIPE;
      return fail(ErrorCode::kUnavailable, "cannot write: {}", std::strerror(errno))
          .at("stdout")
          .with_fix("Send the output to a terminal, a pipe that is read, or a file with room for it.");
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

// DEL and U+0080 to U+009F stand in JSON as they are, but terminals obey them: as escapes they are the same.
Status write_json(const Json& json, int indent) {
  const std::string text = dump_json(json, indent);
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0u;
    if (byte == 0x7F) {
      out += "\\u007f";
    } else if (byte == 0xC2 && next < 0xA0) {
      out += fmt::format("\\u{:04x}", next);
      ++i;
    } else {
      out += text[i];
    }
  }
  return write_stdout(out + "\n");
}

void set_result_status(int status) { g_result_status = status; }
int result_status() { return g_result_status; }

void attach_to_error(const std::string& key, Json value) { g_error_attachments[key] = std::move(value); }

const Json& error_attachments() { return g_error_attachments; }

bool stdout_reader_is_gone() { return g_reader_is_gone; }

namespace {

bool has_color(int fd) {
  const char* const no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') return false;
  const char* const term = std::getenv("TERM");
  if (term == nullptr || std::string_view(term) == "dumb") return false;
  return ::isatty(fd) == 1;
}

}  // namespace

bool stderr_has_color() { return has_color(STDERR_FILENO); }
bool stdout_has_color() { return has_color(STDOUT_FILENO); }

size_t terminal_columns() {
  constexpr size_t kOfNoTerminal = 100;
  winsize size{};
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : kOfNoTerminal;
}

Status check_output_file(const fs::path& path, const ModelFiles& source, bool force) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) {
    return fail(ErrorCode::kInvalidArgument, "is a folder, but -o wants a file here").at(name_of(path));
  }
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    return fail(ErrorCode::kInvalidArgument, "is a device or a pipe, but -o wants a file here")
        .at(name_of(path));
  }
  std::vector<fs::path> own = weight_files(source);
  if (!source.folder.empty()) {
    for (const std::string& name : source.list()) own.push_back(source.folder / name);
  }
  if (std::any_of(own.begin(), own.end(), [&](const fs::path& file) { return same_place(path, file); })) {
    return fail(ErrorCode::kInvalidArgument, "the output is a file of the model that is read")
        .at(name_of(path))
        .with_fix("Name another file with -o.");
  }
  if (fs::exists(status) && !force) {
    return fail(ErrorCode::kInvalidArgument, "exists already")
        .at(name_of(path))
        .with_fix("Name another file with -o, or replace this one with --force.");
  }
  const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!fs::is_directory(parent, error)) {
    return fail(ErrorCode::kNotFound, "there is no folder of this name for the output")
        .at(name_of(parent))
        .with_fix("Create it first, or name another file with -o.");
  }
  if (::access(parent.c_str(), W_OK) != 0) {
    return fail(ErrorCode::kUnavailable, "cannot write into this folder: {}", std::strerror(errno))
        .at(name_of(parent))
        .with_fix("Name another file with -o.");
  }
  return {};
}

OutputFolder::OutputFolder(fs::path path, Remove remove) : path_(std::move(path)), remove_(remove) {}

OutputFolder::OutputFolder(OutputFolder&& other) noexcept
    : path_(std::move(other.path_)), remove_(std::exchange(other.remove_, Remove::kNothing)) {}

OutputFolder::~OutputFolder() {
  std::error_code ignored;  // there is an earlier error to report
  if (remove_ == Remove::kFolder) fs::remove_all(path_, ignored);
  if (remove_ == Remove::kContent) {
    for (const auto& entry : fs::directory_iterator(path_, ignored)) fs::remove_all(entry.path(), ignored);
  }
}

Expected<OutputFolder> OutputFolder::create(const fs::path& path, const ModelFiles& source, bool force) {
  if (same_place(path, source.folder) || same_place(path, source.gguf)) {
    return fail(ErrorCode::kInvalidArgument, "the output is the model that is read")
        .at(name_of(path))
        .with_fix("Name another folder with -o.");
  }
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_directory(status)) {
    return fail(ErrorCode::kInvalidArgument, "is a file, but -o wants a folder here")
        .at(name_of(path))
        .with_fix("Name a folder that does not exist yet.");
  }
  Remove remove = Remove::kFolder;
  if (fs::exists(status)) {
    const bool empty = fs::is_empty(path, error);
    if (error) {
      return fail(ErrorCode::kUnavailable, "cannot look into this folder: {}", error.message())
          .at(name_of(path));
    }
    if (!empty && !force) {
      return fail(ErrorCode::kInvalidArgument, "the folder exists already and is not empty")
          .at(name_of(path))
          .with_fix("Name another folder with -o, or write into this one with --force.");
    }
    remove = empty ? Remove::kContent : Remove::kNothing;
  }
  NIBBLE_RETURN_IF_ERROR(create_folder(path));
  if (::access(path.c_str(), W_OK) != 0) {
    return fail(ErrorCode::kUnavailable, "cannot write into this folder: {}", std::strerror(errno))
        .at(name_of(path))
        .with_fix("Name another folder with -o.");
  }
  return OutputFolder(path, remove);
}

}  // namespace nibble::cli
