#ifndef NIBBLE_CLI_COMPLETION_H_
#define NIBBLE_CLI_COMPLETION_H_

#include <span>
#include <string>

#include "nibble/cli/command_table.h"

namespace nibble::cli {

// Scripts that a shell reads to complete the words of `nibble`.
std::string bash_completion(std::span<const CommandInfo> commands);
std::string zsh_completion(std::span<const CommandInfo> commands);
std::string fish_completion(std::span<const CommandInfo> commands);

// The manual page nibble(1) in the language of man(7).
std::string manual_page(std::span<const CommandInfo> commands);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_COMPLETION_H_
