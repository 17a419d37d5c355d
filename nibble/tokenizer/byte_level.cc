#include "nibble/tokenizer/byte_level.h"

#include <array>

namespace nibble {
namespace {

struct Tables {
  std::array<std::array<char, 2>, 256> utf8{};
  std::array<uint8_t, 256> size{};
  std::array<int16_t, 0x144> byte{};  // by code point; -1: none

  constexpr Tables() {
    for (auto& b : byte) b = -1;
    unsigned next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const unsigned c = printable ? b : next++;
      byte[c] = static_cast<int16_t>(b);
      if (c < 0x80) {
        utf8[b][0] = static_cast<char>(c);
        size[b] = 1;
      } else {
        utf8[b][0] = static_cast<char>(0xC0 | (c >> 6));
        utf8[b][1] = static_cast<char>(0x80 | (c & 0x3F));
        size[b] = 2;
      }
    }
  }
};

constexpr Tables kTables;

}  // namespace

std::string_view byte_level_char(uint8_t byte) { return {kTables.utf8[byte].data(), kTables.size[byte]}; }

std::optional<uint8_t> byte_level_byte(char32_t c) {
  if (c >= kTables.byte.size() || kTables.byte[c] < 0) return std::nullopt;
  return static_cast<uint8_t>(kTables.byte[c]);
}

}  // namespace nibble
