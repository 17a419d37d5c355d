#include "nibble/base/printable.h"

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
    const size_t bytes = control_bytes(text);
    const bool is_new_line = text[0] == '\n' && text.substr(1).starts_with(kIndent);
    if (bytes == 0 || is_new_line) {
      out += text[0];
      text.remove_prefix(1);
      continue;
    }
    out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[bytes - 1]));
    text.remove_prefix(bytes);
  }
  return out;
}

}  // namespace

std::string printable(std::string_view text, size_t max_bytes) {
  return without_controls(text.size() > max_bytes ? without_middle(text, max_bytes) : text);
}

}  // namespace nibble
