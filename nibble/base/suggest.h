#ifndef NIBBLE_BASE_SUGGEST_H_
#define NIBBLE_BASE_SUGGEST_H_

// Which name was meant by one that does not exist.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// How many letters must be inserted, deleted, replaced, or swapped with their neighbour.
size_t edit_distance(std::string_view a, std::string_view b);

// The candidate that was most likely meant; nothing where none is close.
std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& candidates);

// Up to `count` names of the same kind, the most similar first: at least half of the word's letters agree.
std::vector<std::string> most_similar(std::string_view word, const std::vector<std::string>& candidates,
                                      size_t count);

}  // namespace nibble

#endif  // NIBBLE_BASE_SUGGEST_H_
