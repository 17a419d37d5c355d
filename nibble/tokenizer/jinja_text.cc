#include "nibble/tokenizer/jinja_text.h"

#include <algorithm>
#include <iterator>

#include <utf8proc.h>

namespace nibble::jinja {
namespace {

constexpr char32_t kInvalidByte = 0xDC00;  // + the byte

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

// Uppercase forms of more than one character: SpecialCasing.txt, without the Greek iota subscripts.
struct LongUpper {
  char32_t c;
  std::string_view upper;
  std::string_view title;
};
constexpr LongUpper kLongUpper[] = {
    {0x00DF, "SS", "Ss"}, {0x0149, "ʼN", "ʼN"}, {0x01F0, "J̌", "J̌"},     {0x0390, "Ϊ́", "Ϊ́"},
    {0x03B0, "Ϋ́", "Ϋ́"},   {0x0587, "ԵՒ", "Եւ"}, {0x1E96, "H̱", "H̱"},     {0x1E97, "T̈", "T̈"},
    {0x1E98, "W̊", "W̊"},   {0x1E99, "Y̊", "Y̊"},   {0x1E9A, "Aʾ", "Aʾ"},   {0xFB00, "FF", "Ff"},
    {0xFB01, "FI", "Fi"}, {0xFB02, "FL", "Fl"}, {0xFB03, "FFI", "Ffi"}, {0xFB04, "FFL", "Ffl"},
    {0xFB05, "ST", "St"}, {0xFB06, "ST", "St"}, {0xFB13, "ՄՆ", "Մն"},   {0xFB14, "ՄԵ", "Մե"},
    {0xFB15, "ՄԻ", "Մի"}, {0xFB16, "ՎՆ", "Վն"}, {0xFB17, "ՄԽ", "Մխ"},
};

const LongUpper* long_upper(char32_t c) {
  if (c < 0xDF) return nullptr;
  const auto* found = std::find_if(std::begin(kLongUpper), std::end(kLongUpper),
                                   [c](const LongUpper& entry) { return entry.c == c; });
  return found == std::end(kLongUpper) ? nullptr : found;
}

bool is_invalid(char32_t c) { return c >= kInvalidByte && c <= kInvalidByte + 0xFF; }

void append_upper(std::string& out, char32_t c) {
  if (const LongUpper* entry = long_upper(c)) {
    out += entry->upper;
  } else {
    append_utf8(
        out, is_invalid(c) ? c : static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
  }
}

void append_title(std::string& out, char32_t c) {
  if (const LongUpper* entry = long_upper(c)) {
    out += entry->title;
  } else {
    append_utf8(
        out, is_invalid(c) ? c : static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
  }
}

void append_lower(std::string& out, char32_t c) {
  if (c == 0x0130) {  // İ
    out += "i̇";
  } else {
    append_utf8(
        out, is_invalid(c) ? c : static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
}

bool is_case_ignorable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return c == '\'' || c == '.' || c == ':' || c == 0xB7 || c == 0x2019;
  }
}

// A capital sigma whose code point ends at `end` is final: behind a letter, and none follows.
bool is_final_sigma(std::string_view text, size_t end) {
  size_t pos = end - 2;  // Σ has two bytes
  char32_t c = 0;
  do {
    if (pos == 0) return false;
    c = previous_char(text, pos);
  } while (is_case_ignorable(c));
  if (!is_cased(c)) return false;
  for (pos = end; pos < text.size();) {
    c = next_char(text, pos);
    if (!is_case_ignorable(c)) return !is_cased(c);
  }
  return true;
}

// Lowercases with the rule for the final sigma, which looks at the neighbours.
class Lowercase {
 public:
  explicit Lowercase(std::string_view text) : text_(text) {}
  // To be called for each character of the text in turn.
  void operator()(char32_t c, std::string& out) {
    skip();
    if (c == 0x03A3 && is_final_sigma(text_, pos_)) {
      out += "ς";
    } else {
      append_lower(out, c);
    }
  }
  void skip() { next_char(text_, pos_); }

 private:
  std::string_view text_;
  size_t pos_ = 0;
};

}  // namespace

Text Text::from_user(std::string bytes) {
  Text text(std::move(bytes));
  if (!text.bytes.empty()) text.data.push_back({0, text.bytes.size()});
  return text;
}

void Text::append(std::string_view more, bool from_user) {
  if (more.empty()) return;
  if (from_user) {
    if (!data.empty() && data.back().end == bytes.size()) {
      data.back().end += more.size();
    } else {
      data.push_back({bytes.size(), bytes.size() + more.size()});
    }
  }
  bytes += more;
}

void Text::append(const Text& other, size_t begin, size_t end) {
  const size_t offset = bytes.size();
  bytes.append(other.bytes, begin, end - begin);
  auto run = std::lower_bound(other.data.begin(), other.data.end(), begin,
                              [](const TextRange& range, size_t at) { return range.end <= at; });
  for (; run != other.data.end() && run->begin < end; ++run) {
    const TextRange moved{std::max(run->begin, begin) - begin + offset,
                          std::min(run->end, end) - begin + offset};
    if (!data.empty() && data.back().end == moved.begin) {
      data.back().end = moved.end;
    } else {
      data.push_back(moved);
    }
  }
}

Text Text::sub(size_t begin, size_t end) const {
  Text out;
  if (begin < end) out.append(*this, begin, end);
  return out;
}

char32_t next_char(std::string_view text, size_t& pos) {
  const auto first = static_cast<unsigned char>(text[pos]);
  if (first < 0x80) {
    ++pos;
    return first;
  }
  utf8proc_int32_t c = -1;
  const auto length =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + pos),
                       static_cast<utf8proc_ssize_t>(std::min<size_t>(4, text.size() - pos)), &c);
  if (length <= 0) {
    ++pos;
    return kInvalidByte + first;
  }
  pos += static_cast<size_t>(length);
  return static_cast<char32_t>(c);
}

char32_t previous_char(std::string_view text, size_t& pos) {
  const size_t end = pos;
  size_t start = pos - 1;
  while (start > 0 && end - start < 4 && is_continuation(text[start])) --start;
  size_t next = start;
  const char32_t c = next_char(text, next);
  if (next == end) {
    pos = start;
    return c;
  }
  pos = end - 1;
  return kInvalidByte + static_cast<unsigned char>(text[pos]);
}

void append_utf8(std::string& out, char32_t c) {
  if (is_invalid(c)) {
    out += static_cast<char>(c - kInvalidByte);
    return;
  }
  utf8proc_uint8_t buffer[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), buffer);
  out.append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(length));
}

size_t count_chars(std::string_view text) {
  size_t count = 0;
  for (size_t pos = 0; pos < text.size(); ++count) next_char(text, pos);
  return count;
}

size_t byte_offset(std::string_view text, size_t index) {
  size_t pos = 0;
  while (index > 0 && pos < text.size()) {
    next_char(text, pos);
    --index;
  }
  return pos;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_line_break(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool is_alpha(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }

bool is_digit(char32_t c) {
  // Superscripts, subscripts and circled digits count too.
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 ||
         (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468);
}

bool is_numeric(char32_t c) {
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO;
}

bool is_alnum(char32_t c) { return is_alpha(c) || is_numeric(c); }

bool is_lower(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  return category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA;
}

bool is_upper(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  return category(c) == UTF8PROC_CATEGORY_LU;
}

bool is_title(char32_t c) { return c >= 0x80 && category(c) == UTF8PROC_CATEGORY_LT; }

bool is_printable(char32_t c) {
  if (c < 0x7F) return c >= 0x20;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

Text to_upper(const Text& text) {
  return map_chars(text, [](char32_t c, std::string& out) { append_upper(out, c); });
}

Text to_lower(const Text& text) { return map_chars(text, Lowercase(text.view())); }

Text to_title(const Text& text) {
  bool inside_word = false;
  Lowercase lower(text.view());
  return map_chars(text, [&](char32_t c, std::string& out) {
    if (inside_word) {
      lower(c, out);
    } else {
      lower.skip();
      append_title(out, c);
    }
    inside_word = is_cased(c);
  });
}

Text to_capitalized(const Text& text) {
  bool first = true;
  Lowercase lower(text.view());
  return map_chars(text, [&](char32_t c, std::string& out) {
    if (first) {
      lower.skip();
      append_title(out, c);
    } else {
      lower(c, out);
    }
    first = false;
  });
}

Text swap_case(const Text& text) {
  Lowercase lower(text.view());
  return map_chars(text, [&](char32_t c, std::string& out) {
    if (is_upper(c)) {
      lower(c, out);
    } else {
      lower.skip();
      append_upper(out, c);
    }
  });
}

Text fold_case(const Text& text) {
  return map_chars(text, [](char32_t c, std::string& out) {
    if (const LongUpper* entry = long_upper(c)) {
      for (size_t pos = 0; pos < entry->upper.size();) append_lower(out, next_char(entry->upper, pos));
    } else if (c == 0x1E9E) {  // ẞ
      out += "ss";
    } else {
      append_lower(out, c == 0x03C2 ? 0x03A3 : c);  // a final sigma is a sigma
    }
  });
}

}  // namespace nibble::jinja
