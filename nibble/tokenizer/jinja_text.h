#ifndef NIBBLE_TOKENIZER_JINJA_TEXT_H_
#define NIBBLE_TOKENIZER_JINJA_TEXT_H_

// Strings of a chat template: UTF-8 bytes, and which of them came from the user. Every operation on
// strings goes through Text, so that the origin of each byte survives until the output.

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nibble/tokenizer/chat_template.h"

namespace nibble::jinja {

struct Text {
  std::string bytes;
  std::vector<TextRange> data;  // what came from the user: sorted, disjoint, never touching

  Text() = default;
  explicit Text(std::string constant) : bytes(std::move(constant)) {}
  static Text from_user(std::string bytes);

  size_t size() const { return bytes.size(); }
  std::string_view view() const { return bytes; }

  void append(std::string_view more, bool from_user = false);
  void append(const Text& other) { append(other, 0, other.size()); }
  void append(const Text& other, size_t begin, size_t end);
  Text sub(size_t begin, size_t end) const;
};

// The code point at `pos`, which moves behind it. Of invalid UTF-8 one byte is taken and returned as
// the lone surrogate U+DC80...U+DCFF, as Python's surrogateescape does.
char32_t next_char(std::string_view text, size_t& pos);
// The same backwards: `pos` moves to the start of the code point that ends there.
char32_t previous_char(std::string_view text, size_t& pos);
void append_utf8(std::string& out, char32_t c);
size_t count_chars(std::string_view text);
// The byte where character `index` starts, or text.size().
size_t byte_offset(std::string_view text, size_t index);

// Replaces each code point by what `map(c, out)` appends to `out`; what came from the user stays so.
template <class Map>
Text map_chars(const Text& text, Map map) {
  Text out;
  size_t run = 0;
  std::string piece;
  for (size_t pos = 0; pos < text.size();) {
    while (run < text.data.size() && text.data[run].end <= pos) ++run;
    const bool from_user = run < text.data.size() && text.data[run].begin <= pos;
    piece.clear();
    map(next_char(text.bytes, pos), piece);
    out.append(piece, from_user);
  }
  return out;
}

// Python's idea of characters: str.isspace(), str.isalpha()...
bool is_space(char32_t c);
bool is_line_break(char32_t c);  // str.splitlines()
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_alnum(char32_t c);
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_printable(char32_t c);
inline bool is_cased(char32_t c) { return is_lower(c) || is_upper(c) || is_title(c); }

Text to_upper(const Text& text);
Text to_lower(const Text& text);
Text to_title(const Text& text);  // str.title()
Text to_capitalized(const Text& text);
Text swap_case(const Text& text);
Text fold_case(const Text& text);  // str.casefold()

// [begin, end) without the characters at the ends that `strip` accepts.
template <class Strip>
TextRange strip_range(std::string_view text, Strip strip, bool left, bool right) {
  TextRange range{0, text.size()};
  while (left && range.begin < range.end) {
    size_t next = range.begin;
    if (!strip(next_char(text, next))) break;
    range.begin = next;
  }
  while (right && range.begin < range.end) {
    size_t next = range.end;
    if (!strip(previous_char(text, next))) break;
    range.end = next;
  }
  return range;
}

}  // namespace nibble::jinja

#endif  // NIBBLE_TOKENIZER_JINJA_TEXT_H_
