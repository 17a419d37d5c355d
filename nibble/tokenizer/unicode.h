#ifndef NIBBLE_TOKENIZER_UNICODE_H_
#define NIBBLE_TOKENIZER_UNICODE_H_

// UTF-8 and the few Unicode properties that tokenizers ask for, as Rust defines them.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

struct CodePoint {
  char32_t value = 0;
  size_t size = 0;  // bytes in UTF-8
};

// The code point that starts at `pos` of a valid UTF-8 text; pos < text.size().
CodePoint decode_utf8(std::string_view text, size_t pos);
// The one that ends at `end` of a valid UTF-8 text; end > 0.
CodePoint decode_utf8_before(std::string_view text, size_t end);
void append_utf8(std::string& out, char32_t c);
size_t utf8_size(char32_t c);
inline bool is_utf8_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

bool is_valid_utf8(std::string_view text);
size_t count_utf8(std::string_view text);  // code points of a valid UTF-8 text

// Each maximal part that cannot be UTF-8 becomes one U+FFFD, as in String::from_utf8_lossy.
// `positions`: sorted byte positions of `text`, moved to where they are in the result.
std::string to_valid_utf8(std::string_view text, std::span<size_t> positions = {});

// Bytes at the end of `text` that begin a character whose rest is missing: 0 to 3.
size_t incomplete_utf8_suffix(std::string_view text);

bool is_whitespace(char32_t c);       // White_Space
bool is_numeric(char32_t c);          // N
bool is_punctuation(char32_t c);      // P, and all ASCII punctuation
bool is_combining_mark(char32_t c);   // M
bool is_nonspacing_mark(char32_t c);  // Mn
bool is_other(char32_t c);            // C without what is not assigned
bool is_word(char32_t c);             // \w of UTS #18

std::u32string to_lowercase(char32_t c);

// Where the extended grapheme cluster that begins at `pos` of a valid UTF-8 text ends; pos < text.size().
size_t grapheme_end(std::string_view text, size_t pos);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_UNICODE_H_
