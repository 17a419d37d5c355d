#include "nibble/tokenizer/unicode.h"

#include <algorithm>

#include <utf8proc.h>

namespace nibble {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

unsigned byte_at(std::string_view text, size_t i) { return static_cast<unsigned char>(text[i]); }

// What stands at `pos`: a whole character, the longest part of one that is cut short by something
// else (`valid` false), or one that the end of the text cuts short (`at_end`).
struct Scan {
  size_t size = 1;
  bool valid = false;
  bool at_end = false;
};

Scan scan_utf8(std::string_view text, size_t pos) {
  const unsigned lead = byte_at(text, pos);
  if (lead < 0x80) return {1, true, false};
  size_t need = 0;
  unsigned low = 0x80, high = 0xBF;  // of the second byte: Unicode standard, table 3-7
  if (lead >= 0xC2 && lead <= 0xDF) {
    need = 1;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    need = 2;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    need = 3;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {1, false, false};
  }
  for (size_t i = 1; i <= need; ++i) {
    if (pos + i == text.size()) return {i, false, true};
    const unsigned b = byte_at(text, pos + i);
    if (b < low || b > high) return {i, false, false};
    low = 0x80;
    high = 0xBF;
  }
  return {need + 1, true, false};
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

}  // namespace

CodePoint decode_utf8(std::string_view text, size_t pos) {
  const unsigned lead = byte_at(text, pos);
  if (lead < 0x80) return {lead, 1};
  const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  char32_t c = lead & (0xFFu >> (size + 1));
  for (size_t i = 1; i < size && pos + i < text.size(); ++i) c = (c << 6) | (byte_at(text, pos + i) & 0x3F);
  return {c, size};
}

CodePoint decode_utf8_before(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && is_utf8_continuation(text[begin])) --begin;
  return {decode_utf8(text, begin).value, end - begin};
}

size_t utf8_size(char32_t c) { return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4; }

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  switch (utf8_size(c)) {
    case 1:
      put(c);
      return;
    case 2:
      put(0xC0 | (c >> 6));
      break;
    case 3:
      put(0xE0 | (c >> 12));
      put(0x80 | ((c >> 6) & 0x3F));
      break;
    default:
      put(0xF0 | (c >> 18));
      put(0x80 | ((c >> 12) & 0x3F));
      put(0x80 | ((c >> 6) & 0x3F));
  }
  put(0x80 | (c & 0x3F));
}

size_t count_utf8(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return !is_utf8_continuation(c); }));
}

bool is_valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Scan scan = scan_utf8(text, i);
    if (!scan.valid) return false;
    i += scan.size;
  }
  return true;
}

std::string to_valid_utf8(std::string_view text, std::span<size_t> positions) {
  std::string out;
  out.reserve(text.size());
  size_t next = 0;  // of positions
  for (size_t i = 0; i < text.size();) {
    for (; next < positions.size() && positions[next] <= i; ++next) positions[next] = out.size();
    const Scan scan = scan_utf8(text, i);
    out += scan.valid ? text.substr(i, scan.size) : kReplacement;
    i += scan.size;
  }
  for (; next < positions.size(); ++next) positions[next] = out.size();
  return out;
}

size_t incomplete_utf8_suffix(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0 && text.size() - begin < 3 && is_utf8_continuation(text[begin - 1])) --begin;
  if (begin == 0) return 0;
  --begin;
  const Scan scan = scan_utf8(text, begin);
  return scan.at_end && begin + scan.size == text.size() ? scan.size : 0;
}

bool is_whitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const auto cat = category(c);
  return cat == UTF8PROC_CATEGORY_ND || cat == UTF8PROC_CATEGORY_NL || cat == UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80)
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
  const auto cat = category(c);
  return cat >= UTF8PROC_CATEGORY_PC && cat <= UTF8PROC_CATEGORY_PO;
}

bool is_combining_mark(char32_t c) {
  if (c < 0x300) return false;
  const auto cat = category(c);
  return cat == UTF8PROC_CATEGORY_MN || cat == UTF8PROC_CATEGORY_MC || cat == UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(char32_t c) { return c >= 0x300 && category(c) == UTF8PROC_CATEGORY_MN; }

bool is_other(char32_t c) {
  if (c < 0x80) return c < 0x20 || c == 0x7F;
  const auto cat = category(c);
  return cat == UTF8PROC_CATEGORY_CC || cat == UTF8PROC_CATEGORY_CF || cat == UTF8PROC_CATEGORY_CO;
}

bool is_word(char32_t c) {
  if (c < 0x80) return c == '_' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      // The joiners, and the symbols that are Other_Alphabetic: circled and squared letters.
      return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
             (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  }
}

std::u32string to_lowercase(char32_t c) {
  if (c < 0x80) return std::u32string(1, c >= 'A' && c <= 'Z' ? c + 32 : c);
  if (c == 0x130) return U"i\u0307";  // the only one that grows
  return std::u32string(1, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

size_t grapheme_end(std::string_view text, size_t pos) {
  CodePoint last = decode_utf8(text, pos);
  utf8proc_int32_t state = 0;
  for (pos += last.size; pos < text.size(); pos += last.size) {
    const CodePoint next = decode_utf8(text, pos);
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last.value),
                                         static_cast<utf8proc_int32_t>(next.value), &state)) {
      break;
    }
    last = next;
  }
  return pos;
}

}  // namespace nibble
