#include "nibble/report/text.h"

#include <algorithm>

#include <utf8proc.h>

namespace nibble::report {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct Character {
  utf8proc_int32_t code;  // -1: one byte that is not UTF-8
  size_t size;
};

Character next_character(std::string_view text) {
  utf8proc_int32_t code = -1;
  const auto* const bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto limit = static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size(), 4));
  const utf8proc_ssize_t size = utf8proc_iterate(bytes, limit, &code);
  return size > 0 ? Character{code, static_cast<size_t>(size)} : Character{-1, 1};
}

bool is_unwanted(utf8proc_int32_t code) {
  return code < 0 || (code < 0x20 && code != '\n' && code != '\t') || (code >= 0x7f && code < 0xa0) ||
         (code >= 0x202a && code <= 0x202e) ||  // embeddings and overrides of direction
         (code >= 0x2066 && code <= 0x2069) ||  // isolates
         code == 0x2028 || code == 0x2029;      // line and paragraph separators
}

size_t character_columns(utf8proc_int32_t code) {
  return code < 0 ? 1 : static_cast<size_t>(std::max(utf8proc_charwidth(code), 0));
}

}  // namespace

std::string clean(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character character = next_character(text);
    out += is_unwanted(character.code) ? kReplacement : text.substr(0, character.size);
    text.remove_prefix(character.size);
  }
  return out;
}

std::string one_line(std::string_view text) {
  std::string out;
  bool space = false;
  for (const char c : clean(text)) {
    if (c == ' ' || c == '\n' || c == '\t') {
      space = !out.empty();
      continue;
    }
    if (space) out += ' ';
    space = false;
    out += c;
  }
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : clean(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string escape_markdown(std::string_view text) {
  constexpr std::string_view kSpecial = "\\`*_[]|~#";
  std::string out;
  for (const char c : one_line(text)) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      if (kSpecial.find(c) != kSpecial.npos) out += '\\';
      out += c;
    }
  }
  return out;
}

size_t display_columns(std::string_view text) {
  size_t columns = 0;
  while (!text.empty()) {
    const Character character = next_character(text);
    columns += character_columns(character.code);
    text.remove_prefix(character.size);
  }
  return columns;
}

std::string shorten(std::string_view text, size_t columns) {
  if (display_columns(text) <= columns) return std::string(text);
  size_t used = 0, bytes = 0;
  while (bytes < text.size()) {
    const Character character = next_character(text.substr(bytes));
    const size_t width = character_columns(character.code);
    if (used + width + 1 > columns) break;
    used += width;
    bytes += character.size;
  }
  std::string out(text.substr(0, bytes));
  while (out.ends_with(' ')) out.pop_back();
  return out + "…";
}

std::string wrap(std::string_view text, size_t columns, std::string_view indent) {
  std::string out;
  size_t used = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t width = display_columns(word);
    if (!out.empty()) {
      if (used + 1 + width > columns) {
        out += '\n';
        out += indent;
        used = display_columns(indent);
      } else {
        out += ' ';
        ++used;
      }
    }
    out += word;
    used += width;
  }
  return out;
}

}  // namespace nibble::report
