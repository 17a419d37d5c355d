#ifndef NIBBLE_CLI_CHILD_PROCESS_H_
#define NIBBLE_CLI_CHILD_PROCESS_H_

#include <string>
#include <vector>

#include "nibble/base/error.h"

namespace nibble::cli {

// Runs this very program with other arguments and returns what it wrote to stdout. Its stderr is ours. An
// exit status other than 0 is an error: kCancelled after Ctrl-C, which reaches both.
Expected<std::string> run_self(const std::vector<std::string>& arguments);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_CHILD_PROCESS_H_
