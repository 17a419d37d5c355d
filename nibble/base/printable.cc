#include "nibble/base/printable.h"

#include <algorithm>
#include <span>
#include <vector>

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

// What is shown of the first character, and how many bytes that is of the text.
struct Piece {
  std::string shown;
  size_t bytes;
};

Piece first_piece(std::string_view text) {
  const size_t controls = control_bytes(text);
  const size_t bytes = character_bytes(text);
  const bool is_new_line = text[0] == '\n' && text.substr(1).starts_with(kIndent);
  if ((controls == 0 && bytes > 0) || is_new_line) return {std::string(text.substr(0, bytes)), bytes};
  const size_t skipped = std::max<size_t>(controls, 1);
  return {fmt::format("\\x{:02x}", static_cast<unsigned char>(text[skipped - 1])), skipped};
}

std::vector<Piece> pieces_of(std::string_view text) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < text.size(); i += pieces.back().bytes) pieces.push_back(first_piece(text.substr(i)));
  return pieces;
}

size_t shown_bytes(std::span<const Piece> pieces) {
  size_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.shown.size();
  return bytes;
}

std::string joined(std::span<const Piece> pieces) {
  std::string text;
  for (const Piece& piece : pieces) text += piece.shown;
  return text;
}

// Half of max_bytes from either end. Nothing between them is looked at: a text may be as long as a file.
std::string without_middle(std::string_view text, size_t max_bytes) {
  const size_t half = max_bytes / 2;
  std::string head;
  size_t begin = 0;  // of what is left out
  while (begin < text.size()) {
    const Piece piece = first_piece(text.substr(begin));
    if (head.size() + piece.shown.size() > half) break;
    head += piece.shown;
    begin += piece.bytes;
  }
  size_t end = std::max(begin, text.size() - std::min(half, text.size()));
  while (end < text.size() && is_continuation(text[end])) ++end;
  const std::vector<Piece> pieces = pieces_of(text.substr(end));
  std::span<const Piece> tail = pieces;
  for (; shown_bytes(tail) > half; tail = tail.subspan(1)) end += tail[0].bytes;
  return fmt::format("{}[... {} bytes ...]{}", head, end - begin, joined(tail));
}

}  // namespace

std::string printable(std::string_view text, size_t max_bytes) {
  if (text.size() > max_bytes) return without_middle(text, max_bytes);
  std::string shown = joined(pieces_of(text));
  return shown.size() > max_bytes ? without_middle(text, max_bytes) : shown;
}

}  // namespace nibble
