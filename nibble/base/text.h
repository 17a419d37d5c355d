#ifndef NIBBLE_BASE_TEXT_H_
#define NIBBLE_BASE_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// ASCII letters; other bytes stay as they are.
std::string lower_case(std::string_view text);
std::string upper_case(std::string_view text);

// "a, b and 12 more": the first `shown` of `names`, for a message.
std::string some_of(const std::vector<std::string>& names, size_t shown = 5);

}  // namespace nibble

#endif  // NIBBLE_BASE_TEXT_H_
