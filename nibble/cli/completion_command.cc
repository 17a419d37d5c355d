// `nibble completion`, `nibble man`: what shells and man(1) read, made from the options themselves.

#include <memory>
#include <optional>

#include "nibble/cli/command.h"
#include "nibble/cli/completion.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"

namespace nibble::cli {
namespace {

struct CompletionArguments {
  CommonOptions common;
  std::string shell;
};

Status print(const std::string& text, const std::string& key, bool json) {
  return json ? write_json({{key, text}}) : write_stdout(text);
}

Status completion(const CompletionArguments& options) {
  const std::vector<CommandInfo> commands = describe_commands();
  std::string script;
  if (options.shell == "bash") script = bash_completion(commands);
  if (options.shell == "zsh") script = zsh_completion(commands);
  if (options.shell == "fish") script = fish_completion(commands);
  if (script.empty()) {
    return fail(ErrorCode::kInvalidArgument, "no shell was named")
        .with_fix("nibble completion bash, zsh or fish");
  }
  return print(script, "script", options.common.json);
}

Action define_completion(CLI::App& app) {
  const auto options = std::make_shared<CompletionArguments>();
  add_choice(app, "SHELL", options->shell, "Which one", {"bash", "zsh", "fish"});
  add_common_options(app, options->common, "Print the script as one JSON object");
  return [options] { return completion(*options); };
}

Action define_man(CLI::App& app) {
  const auto options = std::make_shared<CommonOptions>();
  add_common_options(app, *options, "Print the page as one JSON object");
  return [options] { return print(manual_page(describe_commands()), "page", options->json); };
}

}  // namespace

const Command kCompletionCommand = {
    .name = "completion",
    .summary = "Print a script that completes words in a shell",
    .examples =
        "  source <(nibble completion bash)\n"
        "  nibble completion fish > ~/.config/fish/completions/nibble.fish",
    .define = define_completion,
};

const Command kManCommand = {
    .name = "man",
    .summary = "Print the manual page",
    .examples =
        "  nibble man | man -l -\n"
        "  nibble man > nibble.1",
    .define = define_man,
};

}  // namespace nibble::cli
