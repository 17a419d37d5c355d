#ifndef NIBBLE_CLI_HELP_H_
#define NIBBLE_CLI_HELP_H_

#include <string>

#include <CLI/CLI.hpp>

#include "nibble/cli/command.h"

namespace nibble::cli {

// The page of a command: summary, usage, arguments, options by group, examples.
std::string help_page(const Command& command, const CLI::App& app);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_HELP_H_
