#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "nibble/cli/completion.h"

namespace nibble::cli {
namespace {

// Text as man(7) shows it unchanged.
std::string escaped(std::string_view text) {
  std::string out;
  bool begins_line = true;
  for (const char c : text) {
    if (begins_line && (c == '.' || c == '\'')) out += "\\&";
    begins_line = c == '\n';
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return text;
}

std::string option_entry(const OptionInfo& option) {
  std::string out = ".TP\n";
  for (size_t i = 0; i < option.flags.size(); ++i) {
    out += fmt::format("{}\\fB{}\\fR", i > 0 ? ", " : "", escaped(option.flags[i]));
  }
  if (!option.value.empty()) out += fmt::format(" \\fI{}\\fR", escaped(option.value));
  return fmt::format("{}\n{}\n", out, escaped(option.description));
}

constexpr std::string_view kEnd = R"(.SH EXIT STATUS
0: it worked; 1: failure (or "no", of diff); 2: usage; 3: does not fit or is not supported; 130: interrupted.
.SH ENVIRONMENT
.TP
\fBHF_HUB_CACHE\fR, \fBHF_HOME\fR
Where models of the Hugging Face hub are looked up and put.
.TP
\fBNIBBLE_CPU\fR
Take a lower instruction set than the processor has, for example avx2 or scalar.
.TP
\fBNO_COLOR\fR
No colours.
.TP
\fBXDG_STATE_HOME\fR
The history of \fBnibble chat\fR is kept in nibble/chat_history below this folder.
)";

}  // namespace

std::string manual_page(std::span<const CommandInfo> commands) {
  std::string out = fmt::format(
      ".TH NIBBLE 1 \"\" \"nibble {}\" \"User Commands\"\n"
      ".SH NAME\nnibble \\- load, run and quantize AWQ, GPTQ and bitsandbytes models\n"
      ".SH SYNOPSIS\n.B nibble\n.I COMMAND\n.RI [ OPTIONS ]\n"
      ".SH DESCRIPTION\n"
      "Loads, runs, quantizes and compares language models on CPUs.\n"
      "MODEL is a folder, a name in the Hugging Face cache (org/name), or a .gguf file.\n"
      "Results go to stdout, everything else to stderr.\n"
      ".SH COMMANDS\n",
      NIBBLE_VERSION);
  for (const CommandInfo& command : commands) {
    out += fmt::format(".TP\n\\fB{}\\fR\n{}\n", escaped(command.name), escaped(command.summary));
  }
  for (const CommandInfo& command : commands) {
    const std::string argument =
        command.positional.empty() ? "" : fmt::format(" [\\fI{}\\fR]", escaped(command.positional));
    out +=
        fmt::format(".SH NIBBLE {}\n{}.\n.PP\n\\fBnibble {}\\fR{} [\\fIOPTIONS\\fR]\n",
                    escaped(upper(command.name)), escaped(command.summary), escaped(command.name), argument);
    for (const OptionInfo& option : command.options) out += option_entry(option);
    out += fmt::format(".PP\nExamples:\n.PP\n.EX\n{}\n.EE\n", escaped(command.examples));
  }
  return out + std::string(kEnd);
}

}  // namespace nibble::cli
