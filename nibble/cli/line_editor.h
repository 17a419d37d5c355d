#ifndef NIBBLE_CLI_LINE_EDITOR_H_
#define NIBBLE_CLI_LINE_EDITOR_H_

// Lines that a person types, with editing and a history (libedit), or the lines of a file or pipe.

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "nibble/base/error.h"

namespace nibble::cli {

class LineEditor {
 public:
  enum class Event {
    kLine,
    kEnd,               // of the input; Ctrl-D on an empty line
    kInterrupted,       // Ctrl-C: what was typed is dropped
    kInterruptedEmpty,  // Ctrl-C, and nothing had been typed
  };

  virtual ~LineEditor() = default;
  // On kLine `line` holds it, without its newline. The prompt is shown on stderr, to people only.
  virtual Expected<Event> next(std::string_view prompt, std::string& line) = 0;
  // Puts what was typed, maybe over several lines, into the history.
  virtual void remember(const std::string& /*text*/) {}
};

// history: a file that is read now and written after each remember(); empty for none. A history that
// cannot be written is a warning.
Expected<std::unique_ptr<LineEditor>> open_line_editor(const std::filesystem::path& history);

// $XDG_STATE_HOME/nibble/NAME, or below ~/.local/state; empty where neither folder is known.
std::filesystem::path state_file(std::string_view name);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_LINE_EDITOR_H_
