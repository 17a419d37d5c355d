#ifndef NIBBLE_CLI_COMMAND_H_
#define NIBBLE_CLI_COMMAND_H_

// What a command is: a name, a page of help, and a function that defines its options. Each command
// has a file of its own; the table of all of them is in command_table.cc.

#include <functional>
#include <string_view>

#include <CLI/CLI.hpp>

#include "nibble/base/error.h"

namespace nibble::cli {

using Action = std::function<Status()>;

struct Command {
  std::string_view name;
  std::string_view summary;   // one line, for the list of commands and the top of its help
  std::string_view examples;  // the last lines of its help
  // Adds the options to `app`; what it returns runs once they are parsed.
  Action (*define)(CLI::App& app);
};

extern const Command kRunCommand;
extern const Command kChatCommand;
extern const Command kInspectCommand;
extern const Command kLogitsCommand;
extern const Command kPullCommand;
extern const Command kQuantizeCommand;
extern const Command kCompareCommand;
extern const Command kEvalCommand;
extern const Command kBenchCommand;
extern const Command kDequantizeCommand;
extern const Command kConvertCommand;
extern const Command kDiffCommand;
extern const Command kTokenizeCommand;
extern const Command kDetokenizeCommand;
extern const Command kChatTemplateCommand;
extern const Command kPlanCommand;
extern const Command kDoctorCommand;
extern const Command kCompletionCommand;
extern const Command kManCommand;

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_COMMAND_H_
