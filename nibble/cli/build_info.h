#ifndef NIBBLE_CLI_BUILD_INFO_H_
#define NIBBLE_CLI_BUILD_INFO_H_

// What this program was made with.

#include <string>

namespace nibble::cli {

std::string compiler_name();  // "g++ 12.2.0"
std::string libc_name();      // that runs now: "glibc 2.36"
bool is_optimized();          // false for builds that a debugger likes

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_BUILD_INFO_H_
