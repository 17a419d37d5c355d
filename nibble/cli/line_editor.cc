#include "nibble/cli/line_editor.h"

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>

#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nibble/base/cancel.h"
#include "nibble/base/log.h"
#include "nibble/cli/input.h"

namespace nibble::cli {
namespace {

constexpr int kHistoryLines = 1000;
// A signal may come between looking for it and waiting: then it is seen this much later.
constexpr int kPollMilliseconds = 200;

// One byte of stdin: 1, 0 at its end, -1 for Ctrl-C or a fault.
int read_byte(unsigned char& byte) {
  while (true) {
    if (cancel_requested()) return -1;
    pollfd waiting = {STDIN_FILENO, POLLIN, 0};
    const int ready = ::poll(&waiting, 1, kPollMilliseconds);
    if (ready < 0 && errno != EINTR) return -1;
    if (ready <= 0) continue;
    const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
    if (got >= 0) return static_cast<int>(got);
    if (errno != EINTR && errno != EAGAIN) return -1;
  }
}

// What read_character keeps from call to call.
struct Reading {
  bool interrupted_empty = false;
  int pending = -1;  // a byte that did not belong to the character before it
};

// A character of UTF-8. libedit's own reader would try again after Ctrl-C.
int read_character(EditLine* editor, wchar_t* out) {
  Reading* reading = nullptr;
  el_get(editor, EL_CLIENTDATA, &reading);
  auto byte = static_cast<unsigned char>(reading->pending);
  const int got = reading->pending >= 0 ? 1 : read_byte(byte);
  reading->pending = -1;
  if (got <= 0) {
    const LineInfo* line = el_line(editor);
    reading->interrupted_empty = line->lastchar == line->buffer;
    return got;
  }
  int rest = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : byte >= 0xC0 ? 1 : 0;
  auto c = static_cast<wchar_t>(rest == 0 ? byte : byte & (0x3F >> rest));
  for (; rest > 0; --rest) {
    if (read_byte(byte) <= 0) return -1;
    if ((byte & 0xC0) != 0x80) {
      reading->pending = byte;
      c = 0xFFFD;
      break;
    }
    c = static_cast<wchar_t>((c << 6) | (byte & 0x3F));
  }
  *out = c;
  return 1;
}

char g_prompt[16] = "";  // libedit asks for it without telling who asks
char* current_prompt(EditLine*) { return g_prompt; }

class TerminalEditor final : public LineEditor {
 public:
  explicit TerminalEditor(std::filesystem::path history_file)
      : history_file_(std::move(history_file)),
        history_(history_init()),
        editor_(el_init("nibble", stdin, stderr, stderr)) {
    el_set(editor_, EL_CLIENTDATA, &reading_);
    el_set(editor_, EL_GETCFN, read_character);
    el_set(editor_, EL_PROMPT, current_prompt);
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_SIGNAL, 0);
    el_set(editor_, EL_HIST, ::history, history_);
    const char* const keys[][2] = {{"^R", "em-inc-search-prev"}, {"\\e[3~", "ed-delete-next-char"},
                                   {"\\e[1~", "ed-move-to-beg"}, {"\\e[4~", "ed-move-to-end"},
                                   {"\\e[1;5C", "em-next-word"}, {"\\e[1;5D", "ed-prev-word"}};
    for (const auto& [key, action] : keys) el_set(editor_, EL_BIND, key, action, nullptr);
    el_source(editor_, nullptr);  // ~/.editrc: what the user wants otherwise
    HistEvent event;
    ::history(history_, &event, H_SETSIZE, kHistoryLines);
    ::history(history_, &event, H_SETUNIQUE, 1);
    if (!history_file_.empty()) ::history(history_, &event, H_LOAD, history_file_.c_str());
  }
  TerminalEditor(const TerminalEditor&) = delete;
  TerminalEditor& operator=(const TerminalEditor&) = delete;
  ~TerminalEditor() override {
    el_end(editor_);
    history_end(history_);
  }

  Expected<Event> next(std::string_view prompt, std::string& line) override {
    std::snprintf(g_prompt, sizeof g_prompt, "%.*s", static_cast<int>(prompt.size()), prompt.data());
    el_resize(editor_);
    int size = 0;
    const char* text = el_gets(editor_, &size);
    if (cancel_requested()) {
      std::fputs("\n", stderr);
      if (termination_requested()) return Failure(check_cancelled().error());
      reset_cancel();
      return reading_.interrupted_empty ? Event::kInterruptedEmpty : Event::kInterrupted;
    }
    if (text == nullptr || size <= 0) {
      std::fputs("\n", stderr);
      return Event::kEnd;
    }
    line.assign(text, static_cast<size_t>(size));
    while (line.ends_with('\n') || line.ends_with('\r')) line.pop_back();
    return Event::kLine;
  }

  void remember(const std::string& text) override {
    HistEvent event;
    ::history(history_, &event, H_ENTER, text.c_str());
    if (history_file_.empty()) return;
    std::error_code error;
    std::filesystem::create_directories(history_file_.parent_path(), error);
    const mode_t old = ::umask(0077);  // what people say to a model is their own
    const bool written = ::history(history_, &event, H_SAVE, history_file_.c_str()) >= 0;
    ::umask(old);
    if (!written) warn("the history cannot be written to {}", history_file_.string());
  }

 private:
  std::filesystem::path history_file_;
  Reading reading_;
  History* history_;
  EditLine* editor_;
};

class PipeReader final : public LineEditor {
 public:
  explicit PipeReader(LineReader reader) : reader_(std::move(reader)) {}

  Expected<Event> next(std::string_view, std::string& line) override {
    NIBBLE_TRY(const bool more, reader_.next(line));
    if (line.ends_with('\r')) line.pop_back();
    return more ? Event::kLine : Event::kEnd;
  }

 private:
  LineReader reader_;
};

}  // namespace

Expected<std::unique_ptr<LineEditor>> open_line_editor(const std::filesystem::path& history) {
  if (!stdin_is_terminal()) {
    NIBBLE_TRY(LineReader reader, LineReader::open("-"));
    return std::make_unique<PipeReader>(std::move(reader));
  }
  // libedit converts what was typed by the locale; ours is UTF-8 whatever the terminal's is.
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
  return std::make_unique<TerminalEditor>(history);
}

std::filesystem::path state_file(std::string_view name) {
  if (const char* state = std::getenv("XDG_STATE_HOME"); state && *state == '/') {
    return std::filesystem::path(state) / "nibble" / name;
  }
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return {};
  return std::filesystem::path(home) / ".local/state/nibble" / name;
}

}  // namespace nibble::cli
