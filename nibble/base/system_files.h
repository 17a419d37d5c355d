#ifndef NIBBLE_BASE_SYSTEM_FILES_H_
#define NIBBLE_BASE_SYSTEM_FILES_H_

// Small files of /proc and /sys: one value each, or lines of "key: value". A file that is not there is no
// error: kernels and containers differ in what they show.

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// The text without white space around it; empty where there is none.
std::string read_system_file(const std::filesystem::path& path);

// A number with an optional unit: "4096", "48K", "260M", "123 kB" (all binary). Nothing for "max" and
// the like.
std::optional<size_t> parse_system_size(std::string_view text);

// The value behind the first line that begins with `key`, as "MemTotal:"; empty where there is none.
std::string find_system_value(std::string_view text, std::string_view key);

// "0-3,8" -> {0, 1, 2, 3, 8}; what makes no sense is left out.
std::vector<size_t> parse_cpu_list(std::string_view text);

}  // namespace nibble

#endif  // NIBBLE_BASE_SYSTEM_FILES_H_
