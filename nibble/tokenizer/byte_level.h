#ifndef NIBBLE_TOKENIZER_BYTE_LEVEL_H_
#define NIBBLE_TOKENIZER_BYTE_LEVEL_H_

// GPT-2's way to write any byte as a printable character: printable bytes of Latin-1 stand for
// themselves, the other 68 become U+0100, U+0101... in order. A space (0x20) is written U+0120.

#include <cstdint>
#include <optional>
#include <string_view>

namespace nibble {

// UTF-8 of the character that stands for `byte`: one or two bytes.
std::string_view byte_level_char(uint8_t byte);

// The byte that `c` stands for, if any.
std::optional<uint8_t> byte_level_byte(char32_t c);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_BYTE_LEVEL_H_
