#include "nibble/cli/completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace nibble::cli {
namespace {

constexpr std::string_view kShells = "bash zsh fish";

// In single quotes, as all three shells read it.
std::string quoted(std::string_view text, std::string_view quote) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += quote;
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string all_flags(const CommandInfo& command) {
  std::string flags;
  for (const OptionInfo& option : command.options) {
    for (const std::string& flag : option.flags) flags += (flags.empty() ? "" : " ") + flag;
  }
  return flags;
}

// The words that may follow a command, where they are not files.
std::string positional_words(const CommandInfo& command) {
  return command.positional == "SHELL" ? std::string(kShells) : std::string();
}

bool takes_files(const CommandInfo& command) {
  return !command.positional.empty() && command.positional != "SHELL" && command.positional != "PROMPT";
}

// One option of zsh's _arguments: '*'{-m,--model}'[description]:MODEL:_files'.
std::string zsh_option(const OptionInfo& option) {
  std::string description;
  for (const char c : option.description) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') description += '\\';
    description += c;
  }
  std::string tail = "[" + description + "]";
  if (!option.value.empty()) {
    std::string value;
    for (const char c : option.value) {
      if (c == ':') value += '\\';
      value += c;
    }
    tail += ":" + value + ":";
    if (!option.words.empty()) {
      tail += fmt::format("({})", fmt::join(option.words, " "));
    } else if (option.takes_file()) {
      tail += "_files";
    }
  }
  const std::string head = option.repeats            ? "'*'"
                           : option.flags.size() > 1 ? fmt::format("'({})'", fmt::join(option.flags, " "))
                                                     : "";
  const std::string flags =
      option.flags.size() > 1 ? fmt::format("{{{}}}", fmt::join(option.flags, ",")) : option.flags.front();
  return fmt::format("{}{}{}", head, flags, quoted(tail, "'\\''"));
}

}  // namespace

std::string bash_completion(std::span<const CommandInfo> commands) {
  std::string names;
  std::string values;
  std::string flags;
  std::string words;
  for (const CommandInfo& command : commands) {
    names += command.name + " ";
    flags += fmt::format("    {}) words='{}' ;;\n", command.name, all_flags(command));
    if (const std::string list = positional_words(command); !list.empty()) {
      words += fmt::format("    {}) words='{}' ;;\n", command.name, list);
    } else if (!takes_files(command)) {
      words += fmt::format("    {}) return ;;\n", command.name);
    }
    for (const OptionInfo& option : command.options) {
      if (option.value.empty()) continue;
      std::string pattern;
      for (const std::string& flag : option.flags) {
        pattern += fmt::format("{}'{} {}'", pattern.empty() ? "" : "|", command.name, flag);
      }
      const std::string then = !option.words.empty() ? fmt::format("words='{}'", fmt::join(option.words, " "))
                               : option.takes_file() ? "files=1"
                                                     : "return";
      values += fmt::format("    {}) {} ;;\n", pattern, then);
    }
  }
  return fmt::format(R"(# Completion of nibble for bash, made by: nibble completion bash
_nibble() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}}
  local words= files=
  COMPREPLY=()
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W '{0}help --help --version' -- "$cur"))
    return
  fi
  # --option=value comes as three words.
  if [[ $cur == = ]]; then
    cur=
  elif [[ $prev == = ]]; then
    prev=${{COMP_WORDS[COMP_CWORD-2]}}
  fi
  case "$command $prev" in
{1}    *) files=unknown ;;
  esac
  if [[ $files == unknown && $cur == -* ]]; then
    case $command in
{2}    esac
  elif [[ $files == unknown ]]; then
    case $command in
    help) words='{0}' ;;
{3}    esac
  fi
  if [[ $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  elif [[ $files == 1 || $cur != -* ]]; then
    compopt -o filenames 2> /dev/null
    local IFS=$'\n'
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}}
complete -F _nibble nibble
)",
                     names, values, flags, words);
}

std::string zsh_completion(std::span<const CommandInfo> commands) {
  std::string names;
  std::string cases;
  for (const CommandInfo& command : commands) {
    names += fmt::format("    {}\n", quoted(command.name + ":" + command.summary, "'\\''"));
    cases += fmt::format("    {})\n      _arguments", command.name);
    for (const OptionInfo& option : command.options) cases += " \\\n        " + zsh_option(option);
    if (const std::string list = positional_words(command); !list.empty()) {
      cases += fmt::format(" \\\n        '1:{}:({})'", command.positional, list);
    } else if (takes_files(command)) {
      cases += " \\\n        '*: :_files'";
    }
    cases += " ;;\n";
  }
  return fmt::format(R"(#compdef nibble
# Completion of nibble for zsh, made by: nibble completion zsh
_nibble() {{
  local -a commands
  commands=(
{0}    'help:This page, or the page of a command'
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  shift words
  (( CURRENT-- ))
  case $words[1] in
    help) _describe command commands ;;
{1}  esac
}}
if [[ $funcstack[1] == _nibble ]]; then
  _nibble "$@"
else
  compdef _nibble nibble
fi
)",
                     names, cases);
}

std::string fish_completion(std::span<const CommandInfo> commands) {
  constexpr std::string_view kQuote = "\\'";
  std::string out =
      "# Completion of nibble for fish, made by: nibble completion fish\n"
      "complete -c nibble -f\n"
      "complete -c nibble -n __fish_use_subcommand -a help -d 'This page, or the page of a command'\n";
  for (const CommandInfo& command : commands) {
    out += fmt::format("complete -c nibble -n __fish_use_subcommand -a {} -d {}\n", command.name,
                       quoted(command.summary, kQuote));
  }
  for (const CommandInfo& command : commands) {
    const std::string begin =
        fmt::format("complete -c nibble -n '__fish_seen_subcommand_from {}'", command.name);
    if (const std::string list = positional_words(command); !list.empty()) {
      out += fmt::format("{} -a '{}'\n", begin, list);
    } else if (takes_files(command)) {
      out += begin + " -F\n";
    }
    for (const OptionInfo& option : command.options) {
      out += begin;
      for (const std::string& flag : option.flags) {
        out += flag.starts_with("--") ? " -l " + flag.substr(2) : " -s " + flag.substr(1);
      }
      if (!option.words.empty()) {
        out += fmt::format(" -x -a '{}'", fmt::join(option.words, " "));
      } else if (option.takes_file()) {
        out += " -r -F";
      } else if (!option.value.empty()) {
        out += " -x";
      }
      out += fmt::format(" -d {}\n", quoted(option.description, kQuote));
    }
  }
  return out;
}

}  // namespace nibble::cli
