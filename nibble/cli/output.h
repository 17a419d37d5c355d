#ifndef NIBBLE_CLI_OUTPUT_H_
#define NIBBLE_CLI_OUTPUT_H_

// Where results go: stdout, or a file or folder named with -o.

#include <filesystem>
#include <string>
#include <string_view>

#include "nibble/base/json.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble::cli {

// Writes all of `text` to stdout now. A reader that has gone (`| head`) and a closed or full stdout
// are errors.
Status write_stdout(std::string_view text);
Status write_json(const Json& json, int indent = 2);  // and a newline

// What the program exits with when nothing fails: 0, or 1 for a result that says "no", as diff's.
void set_result_status(int status);
int result_status();

// Puts `value` beside the error of this command, in the one object that --json prints where it fails:
// {"error": {...}, "plan": {...}}.
void attach_to_error(const std::string& key, Json value);
const Json& error_attachments();  // an object

// True once a write found that nobody reads stdout any more: there is no one to complain to.
bool stdout_reader_is_gone();

// Whether "error:" may be red: a terminal, and NO_COLOR is not set (https://no-color.org).
bool stderr_has_color();
bool stdout_has_color();  // and the same for a table

// Columns of the terminal that stdout is; 100 where it is none.
size_t terminal_columns();

// Before long work starts: the file can be created there and is not there yet (or force). kInvalidArgument
// for one of the model's own files, and for what is no file, such as a device.
Status check_output_file(const std::filesystem::path& path, const ModelFiles& source, bool force);

// A folder that a command fills. On failure what was written into a new or empty folder is removed
// again, so that a half-written model never looks like one; nothing else is ever removed.
class OutputFolder {
 public:
  // kInvalidArgument for a folder that has something in it (unless force), for a file, and for the
  // folder that the model itself lies in.
  static Expected<OutputFolder> create(const std::filesystem::path& path, const ModelFiles& source,
                                       bool force);
  OutputFolder(OutputFolder&& other) noexcept;
  OutputFolder& operator=(OutputFolder&&) = delete;
  ~OutputFolder();

  const std::filesystem::path& path() const { return path_; }
  void keep() { remove_ = Remove::kNothing; }

 private:
  enum class Remove { kNothing, kContent, kFolder };
  OutputFolder(std::filesystem::path path, Remove remove);

  std::filesystem::path path_;
  Remove remove_;
};

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_OUTPUT_H_
