#ifndef NIBBLE_CLI_COMMAND_TABLE_H_
#define NIBBLE_CLI_COMMAND_TABLE_H_

// All commands and their options as data: for the list of commands, the completion of shells and the
// manual page.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/cli/command.h"

namespace nibble::cli {

// In the order of the list that `nibble help` prints.
std::span<const Command* const> commands();
const Command* find_command(std::string_view name);  // null if there is none

struct OptionInfo {
  std::vector<std::string> flags;  // "-m", "--model"
  std::string value;               // "MODEL"; empty for a flag
  std::vector<std::string> words;  // all values there are; empty where it may be anything
  std::string description;
  std::string group;
  bool repeats = false;

  bool takes_file() const;  // or a folder, or a model
};

struct CommandInfo {
  std::string name;
  std::string summary;
  std::string positional;  // "MODEL"; empty if it takes no words
  std::string examples;
  std::vector<OptionInfo> options;
};
std::vector<CommandInfo> describe_commands();

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_COMMAND_TABLE_H_
