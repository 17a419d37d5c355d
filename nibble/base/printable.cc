#include "nibble/base/printable.h"

#include <algorithm>

#include <fmt/format.h>

namespace nibble {
namespace {

constexpr std::string_view kIndent = "  ";

// Whether the byte continues a character of UTF-8.
bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Bytes of the control character at the start of `text`; 0 if there is none. U+0080 to U+009F, which some
// terminals obey, too, take two.
size_t control_bytes(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x20 || first == 0x7F) return 1;
  const bool is_c1 = first == 0xC2 && text.size() > 1 && static_cast<unsigned char>(text[1]) < 0xA0;
  return is_c1 ? 2 : 0;
}

// Bytes of the UTF-8 character at the start of `text`; 0 where there is none.
size_t character_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t bytes = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (bytes == 0 || text.size() < bytes) return 0;
  for (size_t i = 1; i < bytes; ++i) {
    if (!is_continuation(text[i])) return 0;
  }
  const bool overlong = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xF0 && byte(1) < 0x90);
  const bool no_character = (first == 0xED && byte(1) >= 0xA0) || (first == 0xF4 && byte(1) >= 0x90);
  return overlong || no_character ? 0 : bytes;
}

std::string without_middle(std::string_view text, size_t max_bytes) {
  size_t head = max_bytes / 2;
  while (head > 0 && is_continuation(text[head])) --head;
  size_t tail = text.size() - max_bytes / 2;
  while (tail < text.size() && is_continuation(text[tail])) ++tail;
  return fmt::format("{}[... {} bytes ...]{}", text.substr(0, head), tail - head, text.substr(tail));
}

std::string without_controls(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t controls = control_bytes(text);
    const size_t bytes = character_bytes(text);
    const bool is_new_line = text[0] == '\n' && text.substr(1).starts_with(kIndent);
    if ((controls == 0 && bytes > 0) || is_new_line) {
      out += text.substr(0, bytes);
      text.remove_prefix(bytes);
      continue;
    }
    const size_t skipped = std::max<size_t>(controls, 1);
    out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[skipped - 1]));
    text.remove_prefix(skipped);
  }
  return out;
}

}  // namespace

std::string printable(std::string_view text, size_t max_bytes) {
  return without_controls(text.size() > max_bytes ? without_middle(text, max_bytes) : text);
}

}  // namespace nibble
