#ifndef NIBBLE_BASE_PRINTABLE_H_
#define NIBBLE_BASE_PRINTABLE_H_

#include <string>
#include <string_view>

namespace nibble {

// `text` as a terminal can be shown it, whoever wrote it: names in a file may hold escape sequences, or be as
// long as the file. Control characters, and bytes that are no UTF-8, become \x1b and the like, but for a line
// break in front of an indented line; where that would be more than max_bytes the middle is left out.
std::string printable(std::string_view text, size_t max_bytes = 2000);

}  // namespace nibble

#endif  // NIBBLE_BASE_PRINTABLE_H_
