#include "nibble/cli/program.h"

#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <optional>

#include <fcntl.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include "nibble/base/cancel.h"
#include "nibble/base/cpu_target.h"
#include "nibble/base/shrunk_file.h"
#include "nibble/base/suggest.h"
#include "nibble/cli/build_info.h"
#include "nibble/cli/command_table.h"
#include "nibble/cli/help.h"
#include "nibble/cli/output.h"

namespace nibble::cli {
namespace {

std::string overview() {
  std::string text =
      "Nibble loads, runs and quantizes language models of the AWQ, GPTQ and bitsandbytes families.\n\n"
      "Usage: nibble COMMAND [OPTIONS]\n\nCommands:\n";
  for (const Command* command : commands()) {
    text += fmt::format("  {:<15} {}\n", command->name, command->summary);
  }
  text += fmt::format("  {:<15} {}\n", "help [COMMAND]", "This page, or the page of a command");
  text +=
      "\nMODEL is a folder, a name in the Hugging Face cache (org/name), or a .gguf file.\n"
      "Results go to stdout, everything else to stderr. Exit status: 0 ok, 1 failure, 2 usage,\n"
      "3 does not fit or unsupported, 130 interrupted.\n"
      "\nExamples:\n"
      "  nibble run ./model -p \"What is a nibble?\"\n"
      "  nibble inspect ./model --json\n";
  return text;
}

std::string version() {
  std::vector<std::string_view> found;
  for (const CpuTarget target : supported_cpu_targets()) found.push_back(cpu_target_name(target));
  return fmt::format("nibble {}\ncompiler: {}\ninstruction sets: found {}; used {}\n", NIBBLE_VERSION,
                     compiler_name(), fmt::join(found, ", "), cpu_target_name(cpu_target()));
}

Failure unknown_command(std::string_view name) {
  std::vector<std::string> names = {"help"};
  for (const Command* command : commands()) names.emplace_back(command->name);
  const auto guess = nearest(name, names);
  return fail(ErrorCode::kInvalidArgument, "there is no command \"{}\"", name)
      .with_fix(guess ? fmt::format("Did you mean \"nibble {}\"? All commands: nibble help", *guess)
                      : "All commands: nibble help");
}

// What CLI11 could not place: flags that do not exist, or words too many.
Failure unexpected_arguments(const Command& command, const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  std::vector<std::string> flags;
  std::vector<std::string> words;
  std::string fix;
  for (const std::string& argument : app.remaining()) {
    if (argument.size() < 2 || argument.front() != '-') {
      words.push_back(fmt::format("\"{}\"", argument));
      continue;
    }
    const std::string flag = argument.substr(0, argument.find('='));
    flags.push_back(flag);
    if (const auto guess = nearest(flag, names)) fix += fmt::format("Did you mean {}? ", *guess);
  }
  fix += fmt::format("All options: nibble {} --help", command.name);
  const std::string where = fmt::format("nibble {}", command.name);
  if (!flags.empty()) {
    return fail(ErrorCode::kInvalidArgument, "there is no option {}", fmt::join(flags, ", "))
        .at(where)
        .with_fix(fix);
  }
  return fail(ErrorCode::kInvalidArgument, "{} more than the command takes", fmt::join(words, ", "))
      .at(where)
      .with_fix(fmt::format("Put words with spaces in quotes. {}", fix));
}

Failure usage_error(const Command& command, std::string_view what) {
  return fail(ErrorCode::kInvalidArgument, "{}", what)
      .at(fmt::format("nibble {}", command.name))
      .with_fix(fmt::format("All options: nibble {} --help", command.name));
}

Status run_command(const Command& command, std::vector<std::string> arguments) {
  CLI::App app{std::string(command.summary), fmt::format("nibble {}", command.name)};
  app.set_help_flag("-h,--help", "Print this page");
  app.get_help_ptr()->group("Common");
  const Action action = command.define(app);
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    return write_stdout(help_page(command, app));
  } catch (const CLI::ExtrasError&) {
    return unexpected_arguments(command, app);
  } catch (const CLI::RequiredError& error) {
    // What is missing may well be what was misspelt.
    if (!app.remaining().empty()) return unexpected_arguments(command, app);
    return usage_error(command, error.what());
  } catch (const CLI::ParseError& error) {
    return usage_error(command, error.what());
  }
  NIBBLE_RETURN_IF_ERROR(check_cpu_request());
  return action();
}

Status help_on(const std::vector<std::string>& names) {
  if (names.empty()) return write_stdout(overview());
  const Command* const command = find_command(names.front());
  if (command == nullptr) return unknown_command(names.front());
  return run_command(*command, {"--help"});
}

Status dispatch(const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    return fail(ErrorCode::kInvalidArgument, "no command was given")
        .with_fix("All commands: nibble help. To begin: nibble run MODEL -p \"Hello\"");
  }
  const std::string& first = arguments.front();
  const std::vector<std::string> rest(arguments.begin() + 1, arguments.end());
  if (first == "help" || first == "--help" || first == "-h") return help_on(rest);
  if (first == "--version" || first == "-V" || first == "version") {
    NIBBLE_RETURN_IF_ERROR(check_cpu_request());
    return write_stdout(version());
  }
  if (first.size() > 1 && first.front() == '-') {
    const auto guess = nearest(first, {"--help", "--version"});
    return fail(ErrorCode::kInvalidArgument, "there is no option {} before a command", first)
        .with_fix(guess ? fmt::format("Did you mean {}?", *guess)
                        : "The command comes first: nibble COMMAND [OPTIONS]");
  }
  const Command* const command = find_command(first);
  if (command == nullptr) return unknown_command(first);
  return run_command(*command, rest);
}

// A closed stdin, stdout or stderr would give its number to the next file that is opened, and
// messages would end up in there. Stdout is held by something that cannot be written to, so that
// writing a result fails as it should.
void hold_standard_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) != -1) continue;
    // open() takes the lowest free number, which is fd.
    [[maybe_unused]] const int opened = ::open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);
  }
}

std::string_view code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kDataLoss:
      return "data_loss";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kOutOfMemory:
      return "out_of_memory";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

void report(const Error& error, bool json) {
  if (stdout_reader_is_gone()) return;  // as `cat` when `head` has seen enough
  if (json) {
    Json object = {{"error",
                    {{"code", code_name(error.code)},
                     {"what", error.what},
                     {"where", error.where},
                     {"fix", error.fix}}}};
    object.update(error_attachments());
    // If stdout cannot be written to either, stderr still says what happened.
    static_cast<void>(write_json(object));
  }
  const std::string_view label = stderr_has_color() ? "\x1b[1;31merror:\x1b[0m" : "error:";
  const std::string text = fmt::format("{} {}\n", label, to_string(error));
  std::fwrite(text.data(), 1, text.size(), stderr);
}

bool wants_json(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument == "--") return false;
    if (argument == "--json") return true;
  }
  return false;
}

Status guarded_dispatch(const std::vector<std::string>& arguments) {
  try {
    return dispatch(arguments);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kOutOfMemory, "the system gave no more memory")
        .with_fix("Use a smaller or quantized model, or a smaller --ctx-size.");
  } catch (const std::exception& error) {
    return fail(ErrorCode::kUnavailable, "unexpected: {}", error.what())
        .with_fix("This is a bug in Nibble: please report it with the command.");
  }
}

}  // namespace

int run_program(const std::vector<std::string>& arguments) {
  hold_standard_streams();
  std::signal(SIGPIPE, SIG_IGN);  // write() says EPIPE instead: output.h
  install_cancel_handler();
  install_shrunk_file_handler();
  const Status status = guarded_dispatch(arguments);
  if (status) return result_status();
  report(status.error(), wants_json(arguments));
  return exit_status(status.error().code);
}

}  // namespace nibble::cli
