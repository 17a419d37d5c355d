#include "nibble/cli/chat_loop.h"

#include <array>
#include <string>
#include <utility>

#include "nibble/base/cancel.h"
#include "nibble/base/log.h"
#include "nibble/cli/chat_input.h"
#include "nibble/cli/chat_session.h"
#include "nibble/cli/input.h"
#include "nibble/cli/line_editor.h"

namespace nibble::cli {
namespace {

void tell(const std::string& text) { log_line(LogLevel::kQuiet, text); }

Status show_settings(ChatSession& session, const std::string& words) {
  if (words.empty()) {
    for (const std::string& line : session.settings()) tell(line);
    return {};
  }
  const size_t space = words.find(' ');
  const size_t value = words.find_first_not_of(' ', space);
  if (space == words.npos || value == words.npos) {
    return fail(ErrorCode::kInvalidArgument, "/set takes a name and a value")
        .with_fix("For example: /set temperature 0.7");
  }
  return session.set(words.substr(0, space), words.substr(value));
}

Status need_file(const std::string& file, std::string_view command) {
  if (!file.empty()) return {};
  return fail(ErrorCode::kInvalidArgument, "{0} takes the name of a file", command);
}

struct ChatCommand {
  std::string_view name;
  std::string_view arguments;
  std::string_view summary;
  Status (*run)(ChatSession& session, const std::string& arguments);  // null: ends the chat, or /help
};

constexpr std::array<ChatCommand, 9> kChatCommands = {{
    {"/help", "", "This list", nullptr},
    {"/set", "[NAME VALUE]", "Show the settings, or change one: /set temperature 0.7", show_settings},
    {"/system", "[TEXT]", "Change the system message; without TEXT, remove it",
     [](ChatSession& session, const std::string& text) -> Status {
       session.set_system(text);
       return {};
     }},
    {"/reset", "", "Forget the conversation, but not the system message",
     [](ChatSession& session, const std::string&) -> Status {
       session.reset();
       return {};
     }},
    {"/retry", "", "Another answer to the last message",
     [](ChatSession& session, const std::string&) { return session.retry(); }},
    {"/save", "FILE", "Write the conversation as JSON",
     [](ChatSession& session, const std::string& file) -> Status {
       NIBBLE_RETURN_IF_ERROR(need_file(file, "/save"));
       return session.save(file);
     }},
    {"/load", "FILE", "Go on with a saved conversation",
     [](ChatSession& session, const std::string& file) -> Status {
       NIBBLE_RETURN_IF_ERROR(need_file(file, "/load"));
       NIBBLE_RETURN_IF_ERROR(session.load(file));
       tell(fmt::format("{} messages", session.messages().size()));
       return {};
     }},
    {"/stats", "", "Tokens, speed and memory so far",
     [](ChatSession& session, const std::string&) -> Status {
       for (const std::string& line : session.stats()) tell(line);
       return {};
     }},
    {"/bye", "", "End; also Ctrl-D", nullptr},
}};

// What people type by habit.
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kAliases = {
    {{"/clear", "/reset"}, {"/exit", "/bye"}, {"/quit", "/bye"}, {"/?", "/help"}, {"/regenerate", "/retry"}}};

void show_help() {
  for (const ChatCommand& command : kChatCommands) {
    tell(fmt::format("  {:<20} {}", fmt::format("{} {}", command.name, command.arguments), command.summary));
  }
  tell(
      "  \"\"\" begins and ends a message of several lines; so does \\ at the end of a line.\n"
      "  Ctrl-C stops an answer. A message that begins with / needs a space before it, or \"\"\" around it.");
}

// False: the chat is over.
Expected<bool> run_chat_command(ChatSession& session, const std::string& text) {
  const size_t end = text.find(' ');
  std::string_view name = std::string_view(text).substr(0, end);
  const size_t begin = text.find_first_not_of(' ', end);
  const std::string arguments = end == text.npos || begin == text.npos ? "" : text.substr(begin);
  for (const auto& [alias, meant] : kAliases) {
    if (name == alias) name = meant;
  }
  if (name == "/bye") return false;
  if (name == "/help") {
    show_help();
    return true;
  }
  for (const ChatCommand& command : kChatCommands) {
    if (command.name != name) continue;
    NIBBLE_RETURN_IF_ERROR(command.run(session, arguments));
    return true;
  }
  return fail(ErrorCode::kInvalidArgument, "there is no command {}", name)
      .with_fix("/help lists them. A message that begins with / needs a space before it.");
}

}  // namespace

Status run_chat(const AnswerOptions& options, LoadedModel& loaded, ThreadPool& pool) {
  const bool terminal = stdin_is_terminal();
  NIBBLE_TRY(const std::unique_ptr<LineEditor> editor,
             open_line_editor(terminal ? state_file("chat_history") : std::filesystem::path()));
  ChatSession session(options, loaded, pool);
  if (terminal) {
    log_line(LogLevel::kNormal, loaded.chat
                                    ? "Type a message. /help lists the commands, /bye ends the chat."
                                    : "No chat template: each line is continued on its own. /bye ends.");
  }
  bool interrupted = false;  // Ctrl-C came last, with nothing typed
  ChatInput input;
  const std::string& text = input.text;
  while (true) {
    NIBBLE_TRY(const LineEditor::Event event, read_message(*editor, input));
    if (event == LineEditor::Event::kEnd) return {};
    if (event == LineEditor::Event::kInterruptedEmpty) {
      if (interrupted) return fail(ErrorCode::kCancelled, "interrupted");
      tell("/bye or Ctrl-D ends the chat; so does Ctrl-C once more.");
      interrupted = true;
      continue;
    }
    interrupted = false;
    if (event == LineEditor::Event::kInterrupted || text.find_first_not_of(" \t\n") == text.npos) continue;
    editor->remember(text);
    Status done;
    if (text.front() == '/' && !input.is_fenced) {
      const Expected<bool> more = run_chat_command(session, text);
      if (more && !*more) return {};
      if (!more) done = Failure(more.error());
    } else {
      done = session.say(text);
    }
    if (done) continue;
    if (!terminal || termination_requested()) return done;
    reset_cancel();
    tell(fmt::format("error: {}", to_string(done.error())));
  }
}

}  // namespace nibble::cli
