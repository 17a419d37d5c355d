#ifndef NIBBLE_CLI_CHAT_INPUT_H_
#define NIBBLE_CLI_CHAT_INPUT_H_

#include <string>

#include "nibble/cli/line_editor.h"

namespace nibble::cli {

// One message of a chat: a line; lines that end with a backslash, and the one behind them; or everything
// between """ and """. `text` is what was meant. The events are those of LineEditor: Ctrl-C in the middle of
// a message drops all of it, the end of the input ends it.
Expected<LineEditor::Event> read_message(LineEditor& editor, std::string& text);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_CHAT_INPUT_H_
