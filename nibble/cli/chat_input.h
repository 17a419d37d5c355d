#ifndef NIBBLE_CLI_CHAT_INPUT_H_
#define NIBBLE_CLI_CHAT_INPUT_H_

#include <string>

#include "nibble/cli/line_editor.h"

namespace nibble::cli {

struct ChatInput {
  std::string text;
  bool is_fenced = false;  // it stood between """ and """: a message, also where it begins with /
};

// One message of a chat: a line; lines that end with a backslash, and the one behind them; or everything
// between """ and """. The events are those of LineEditor: Ctrl-C in the middle of
// a message drops all of it, the end of the input ends it.
Expected<LineEditor::Event> read_message(LineEditor& editor, ChatInput& input);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_CHAT_INPUT_H_
