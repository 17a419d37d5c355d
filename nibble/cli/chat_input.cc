#include "nibble/cli/chat_input.h"

#include <string_view>

namespace nibble::cli {
namespace {

constexpr std::string_view kPrompt = ">>> ";
constexpr std::string_view kContinued = "... ";
constexpr std::string_view kFence = "\"\"\"";

using Event = LineEditor::Event;

// Further lines, up to the fence; `text` holds what stood behind the opening one.
Expected<Event> read_to_fence(LineEditor& editor, std::string& text) {
  std::string line;
  while (!text.ends_with(kFence)) {
    NIBBLE_TRY(const Event event, editor.next(kContinued, line));
    if (event == Event::kEnd) return Event::kLine;
    if (event != Event::kLine) return Event::kInterrupted;
    if (!text.empty()) text += '\n';
    text += line;
  }
  text.resize(text.size() - kFence.size());
  if (text.ends_with('\n')) text.pop_back();
  return Event::kLine;
}

}  // namespace

Expected<Event> read_message(LineEditor& editor, ChatInput& input) {
  std::string& text = input.text;
  NIBBLE_TRY(const Event event, editor.next(kPrompt, text));
  if (event != Event::kLine) return event;
  input.is_fenced = text.starts_with(kFence);
  if (input.is_fenced) {
    text.erase(0, kFence.size());
    return read_to_fence(editor, text);
  }
  std::string line;
  while (text.ends_with('\\')) {
    text.back() = '\n';
    NIBBLE_TRY(const Event more, editor.next(kContinued, line));
    if (more == Event::kEnd) break;
    if (more != Event::kLine) return Event::kInterrupted;
    text += line;
  }
  return Event::kLine;
}

}  // namespace nibble::cli
