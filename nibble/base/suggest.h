#ifndef NIBBLE_CLI_SUGGEST_H_
#define NIBBLE_CLI_SUGGEST_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::cli {

// How many letters must be inserted, deleted, replaced, or swapped with their neighbour.
size_t edit_distance(std::string_view a, std::string_view b);

// The candidate that was most likely meant; nothing where none is close.
std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_SUGGEST_H_
