#ifndef NIBBLE_CLI_PROGRAM_H_
#define NIBBLE_CLI_PROGRAM_H_

#include <string>
#include <vector>

namespace nibble::cli {

// Runs the command that `arguments` (without the program's name) ask for and returns the exit
// status: 0 ok, 1 failure, 2 usage, 3 does not fit or unsupported, 130 interrupted.
int run_program(const std::vector<std::string>& arguments);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_PROGRAM_H_
