#ifndef NIBBLE_CALIBRATION_SCRIPTS_H_
#define NIBBLE_CALIBRATION_SCRIPTS_H_

// Which scripts a text is written in. A model calibrated without Cyrillic answers worse in Russian, and
// nothing else in the run shows it.

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace nibble {

inline constexpr size_t kNumScripts = 26;

// Letters of each script; what belongs to none of them (digits, signs, rare scripts) is not counted.
struct LetterCounts {
  std::array<size_t, kNumScripts> counts = {};  // in the order of the table in scripts.cc

  void add(std::string_view text);  // valid UTF-8
  size_t total() const;
};

// A sentence about the scripts that make up at least 1 % of the letters of the user's text but less than
// 0.1 % of those of the data; nothing if there are none. `name`: what the user's text is called.
std::optional<std::string> script_warning(const LetterCounts& data, const LetterCounts& user,
                                          std::string_view name);

}  // namespace nibble

#endif  // NIBBLE_CALIBRATION_SCRIPTS_H_
