#ifndef NIBBLE_TESTS_FUZZ_FUZZ_H_
#define NIBBLE_TESTS_FUZZ_FUZZ_H_

// What the fuzz targets share. A target is one file, x_fuzz.cc, with LLVMFuzzerTestOneInput: any bytes must
// give a good value or an Error. What must hold besides is a NIBBLE_CHECK, which aborts. docs/fuzzing.md.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "nibble/base/check.h"
#include "nibble/base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace nibble::fuzz {

inline std::string_view as_text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// "FIRST\0REST": for targets that take a file and something beside it. Without a zero byte all is FIRST.
inline std::pair<std::string_view, std::string_view> split_at_zero(std::string_view text) {
  const size_t zero = text.find('\0');
  if (zero == text.npos) return {text, {}};
  return {text.substr(0, zero), text.substr(zero + 1)};
}

// What the program would print: it says something, in one line and indented ones behind it, all of which a
// terminal can show.
inline void check_error(const Error& error) {
  constexpr size_t kLongestMessage = 6100;  // what, where and fix as printable() cuts them
  NIBBLE_CHECK(!error.what.empty());
  const std::string text = to_string(error);
  NIBBLE_CHECK(text.size() <= kLongestMessage);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    NIBBLE_CHECK((c >= 0x20 && c != 0x7F) || (c == '\n' && text.compare(i, 3, "\n  ") == 0));
  }
}

// Whether there is a value; the error is looked at where there is none.
template <class T>
bool accepted(const Expected<T>& result) {
  if (!result) check_error(result.error());
  return result.has_value();
}

}  // namespace nibble::fuzz

#endif  // NIBBLE_TESTS_FUZZ_FUZZ_H_
