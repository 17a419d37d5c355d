#include "nibble/tokenizer/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>

namespace nibble::jinja {
namespace {

// Longest first.
constexpr std::array<std::string_view, 26> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                         "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                         ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

std::string normalize_newlines(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r') {
      out += text[i];
    } else {
      out += '\n';
      if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
    }
  }
  return out;
}

// The length of digits of the given base at `pos`, single underscores between them included.
size_t digits_length(std::string_view text, size_t pos, int base) {
  size_t end = pos;
  while (end < text.size()) {
    size_t at = end;
    if (text[at] == '_' && end > pos) ++at;
    if (at == text.size()) break;
    const char c = static_cast<char>(text[at] | 0x20);
    const int digit = is_ascii_digit(text[at]) ? text[at] - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
    if (digit >= base) break;
    end = at + 1;
  }
  return end - pos;
}

std::string without_underscores(std::string_view digits) {
  std::string out(digits);
  out.erase(std::remove(out.begin(), out.end(), '_'), out.end());
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  Expected<std::vector<Token>> run() {
    while (pos_ < source_.size()) NIBBLE_RETURN_IF_ERROR(read_root());
    add(TokenType::kEnd, "end of template");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(pos_); }

  void add(TokenType type, std::string text) { tokens_.push_back({type, std::move(text), {}, line_}); }

  void advance(size_t bytes) {
    const auto begin = source_.begin() + static_cast<std::ptrdiff_t>(pos_);
    line_ += static_cast<size_t>(std::count(begin, begin + static_cast<std::ptrdiff_t>(bytes), '\n'));
    pos_ += bytes;
  }

  void skip_space() { advance(strip_range(rest(), is_space, true, false).begin); }

  // What stands before the next tag, then the tag itself.
  Status read_root() {
    size_t tag = pos_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == source_.npos || tag + 1 >= source_.size()) {
        add_data(rest());
        advance(source_.size() - pos_);
        return {};
      }
      if (std::string_view("#%{").find(source_[tag + 1]) != std::string_view::npos) break;
      ++tag;
    }
    const char kind = source_[tag + 1];
    char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign != '-' && sign != '+') sign = '\0';
    add_data(stripped_before_tag(std::string_view(source_).substr(pos_, tag - pos_), kind, sign));
    advance(tag - pos_);
    if (kind == '%' && read_raw()) return read_raw_body();
    advance(sign ? 3 : 2);
    if (kind == '#') return read_comment();
    return read_tag(kind == '{');
  }

  void add_data(std::string_view text) {
    if (!text.empty()) add(TokenType::kData, std::string(text));
  }

  std::string_view stripped_before_tag(std::string_view text, char kind, char sign) const {
    if (sign == '-') return text.substr(0, strip_range(text, is_space, false, true).end);
    if (sign == '+' || kind == '{') return text;
    const size_t newline = text.rfind('\n');
    if (newline == text.npos && !line_starting_) return text;
    const size_t begin = newline == text.npos ? 0 : newline + 1;
    const TextRange blank = strip_range(text.substr(begin), is_space, true, false);
    return blank.begin == blank.end ? text.substr(0, begin) : text;
  }

  // The end of a tag whose closing mark of two characters stands at `pos_`, behind an optional sign.
  void close_tag(char sign, bool trims_newline) {
    const size_t begin = pos_;
    advance(sign ? 3 : 2);
    if (sign == '-') {
      skip_space();
    } else if (!sign && trims_newline && rest().starts_with('\n')) {
      advance(1);
    }
    line_starting_ = pos_ > begin && source_[pos_ - 1] == '\n';
  }

  Status read_comment() {
    const size_t line = line_;
    const size_t end = source_.find("#}", pos_);
    if (end == source_.npos) return syntax_error(line, "missing end of comment tag");
    char sign = end > pos_ ? source_[end - 1] : '\0';
    if (sign != '-' && sign != '+') sign = '\0';
    advance(end - pos_ - (sign ? 1 : 0));
    close_tag(sign, true);
    return {};
  }

  // {% raw %}, if that is what stands here.
  bool read_raw() {
    size_t at = pos_ + 2;
    const auto skip = [&] {
      at += strip_range(std::string_view(source_).substr(at), is_space, true, false).begin;
    };
    if (at < source_.size() && (source_[at] == '-' || source_[at] == '+')) ++at;
    skip();
    if (!std::string_view(source_).substr(at).starts_with("raw")) return false;
    at += 3;
    skip();
    const std::string_view end = std::string_view(source_).substr(at);
    if (!end.starts_with("%}") && !end.starts_with("-%}")) return false;
    advance(at - pos_);
    close_tag(end[0] == '-' ? '-' : '\0', false);
    return true;
  }

  Status read_raw_body() {
    for (size_t tag = source_.find("{%", pos_); tag != source_.npos; tag = source_.find("{%", tag + 1)) {
      size_t at = tag + 2;
      const auto skip = [&] {
        at += strip_range(std::string_view(source_).substr(at), is_space, true, false).begin;
      };
      char begin_sign = at < source_.size() ? source_[at] : '\0';
      if (begin_sign == '-' || begin_sign == '+') {
        ++at;
      } else {
        begin_sign = '\0';
      }
      skip();
      if (!std::string_view(source_).substr(at).starts_with("endraw")) continue;
      at += 6;
      skip();
      char end_sign = at < source_.size() ? source_[at] : '\0';
      if (end_sign != '-' && end_sign != '+') end_sign = '\0';
      if (!std::string_view(source_).substr(at + (end_sign ? 1 : 0)).starts_with("%}")) continue;
      add_data(stripped_before_tag(std::string_view(source_).substr(pos_, tag - pos_), '%', begin_sign));
      advance(at - pos_);
      close_tag(end_sign, true);
      return {};
    }
    return syntax_error(line_, "missing end of raw directive");
  }

  // Everything up to %} or }}. Inside brackets these are two operators.
  Status read_tag(bool variable) {
    add(variable ? TokenType::kVariableBegin : TokenType::kBlockBegin, variable ? "{{" : "{%");
    const std::string_view mark = variable ? "}}" : "%}";
    std::string open;  // the closing brackets that are due
    while (pos_ < source_.size()) {
      if (open.empty()) {
        const char c = source_[pos_];
        const bool has_sign = c == '-' || (c == '+' && !variable);
        if (rest().substr(has_sign ? 1 : 0).starts_with(mark)) {
          add(variable ? TokenType::kVariableEnd : TokenType::kBlockEnd, std::string(mark));
          close_tag(has_sign ? c : '\0', !variable);
          return {};
        }
      }
      NIBBLE_RETURN_IF_ERROR(read_token(open));
    }
    return syntax_error(line_, "the template ends inside a tag: {} is missing", mark);
  }

  Status read_token(std::string& open) {
    size_t next = pos_;
    const char32_t c = next_char(source_, next);
    if (is_space(c)) {
      skip_space();
      return {};
    }
    if (c < 0x80 && is_ascii_digit(static_cast<char>(c))) return read_number();
    if (c == '\'' || c == '"') return read_string(static_cast<char>(c));
    if (c == '_' || is_alpha(c)) {
      size_t end = next;
      while (end < source_.size()) {
        const char32_t follower = next_char(source_, next);
        if (follower != '_' && !is_alnum(follower)) break;
        end = next;
      }
      add(TokenType::kName, source_.substr(pos_, end - pos_));
      advance(end - pos_);
      return {};
    }
    return read_operator(open, next);
  }

  Status read_operator(std::string& open, size_t next) {
    for (const std::string_view op : kOperators) {
      if (!rest().starts_with(op)) continue;
      if (op == "(") open += ')';
      if (op == "[") open += ']';
      if (op == "{") open += '}';
      if (op == ")" || op == "]" || op == "}") {
        if (open.empty()) return syntax_error(line_, "unexpected '{}'", op);
        if (open.back() != op[0])
          return syntax_error(line_, "unexpected '{}', expected '{}'", op, open.back());
        open.pop_back();
      }
      add(TokenType::kOperator, std::string(op));
      advance(op.size());
      return {};
    }
    return syntax_error(line_, "unexpected char {}", python_quoted(source_.substr(pos_, next - pos_)));
  }

  Status read_number() {
    if (const auto length = float_length()) {
      tokens_.push_back({TokenType::kFloat, source_.substr(pos_, *length), {}, line_});
      tokens_.back().number = Value(std::strtod(without_underscores(tokens_.back().text).c_str(), nullptr));
      advance(*length);
      return {};
    }
    int base = 10;
    size_t begin = pos_;
    if (source_[pos_] == '0') {
      const char mark = pos_ + 1 < source_.size() ? static_cast<char>(source_[pos_ + 1] | 0x20) : '\0';
      base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 1;
      begin += base == 1 ? 0 : 2;
      if (digits_length(source_, begin, base) == 0) return syntax_error(line_, "a number without digits");
    }
    const size_t length = digits_length(source_, begin, base);
    Int value = 0;
    for (const char c : without_underscores(std::string_view(source_).substr(begin, length))) {
      const int digit = is_ascii_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10;
      if (__builtin_mul_overflow(value, base, &value) || __builtin_add_overflow(value, digit, &value)) {
        return syntax_error(line_, "a number is too large");
      }
    }
    tokens_.push_back(
        {TokenType::kInteger, source_.substr(pos_, begin + length - pos_), Value(value), line_});
    advance(begin + length - pos_);
    return {};
  }

  // 1.5, 1e9, 1.5e-3; behind a dot (`list.0.1`) a number is an index.
  std::optional<size_t> float_length() const {
    if (pos_ > 0 && source_[pos_ - 1] == '.') return std::nullopt;
    size_t end = pos_ + digits_length(source_, pos_, 10);
    bool is_float = false;
    if (end + 1 < source_.size() && source_[end] == '.' && is_ascii_digit(source_[end + 1])) {
      end += 1 + digits_length(source_, end + 1, 10);
      is_float = true;
    }
    if (end < source_.size() && (source_[end] | 0x20) == 'e') {
      size_t digits = end + 1;
      if (digits < source_.size() && (source_[digits] == '+' || source_[digits] == '-')) ++digits;
      if (digits < source_.size() && is_ascii_digit(source_[digits])) {
        return digits + digits_length(source_, digits, 10) - pos_;
      }
    }
    return is_float ? std::optional<size_t>(end - pos_) : std::nullopt;
  }

  Status read_string(char quote) {
    size_t end = pos_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) {
      return syntax_error(line_, "unexpected char {}: the string does not end",
                          python_quoted(std::string(1, quote)));
    }
    NIBBLE_TRY(std::string text, unescape(std::string_view(source_).substr(pos_ + 1, end - pos_ - 1)));
    add(TokenType::kString, std::move(text));
    advance(end + 1 - pos_);
    return {};
  }

  // Python's escapes, but for \N{NAME}. A backslash before anything else stays.
  Expected<std::string> unescape(std::string_view text) const {
    static constexpr std::string_view kSimple = "\\'\"abfnrtv";
    static constexpr std::string_view kMeaning = "\\'\"\a\b\f\n\r\t\v";
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 == text.size()) {
        out += text[i];
        continue;
      }
      const char c = text[++i];
      const size_t simple = kSimple.find(c);
      const size_t hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
      if (simple != kSimple.npos) {
        out += kMeaning[simple];
      } else if (c == '\n') {
        continue;
      } else if (hex > 0) {
        const std::string digits(text.substr(i + 1, hex));
        if (digits.size() < hex || digits.find('_') != digits.npos || digits_length(digits, 0, 16) != hex) {
          return syntax_error(line_, "truncated \\{} escape in a string", c);
        }
        const auto code = std::strtoul(digits.c_str(), nullptr, 16);
        if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
          return syntax_error(line_, "\\{}{} is not a character", c, digits);
        }
        append_utf8(out, static_cast<char32_t>(code));
        i += hex;
      } else if (c >= '0' && c <= '7') {
        char32_t code = 0;
        size_t count = 0;
        for (; count < 3 && i + count < text.size() && text[i + count] >= '0' && text[i + count] <= '7';
             ++count) {
          code = code * 8 + static_cast<char32_t>(text[i + count] - '0');
        }
        append_utf8(out, code);
        i += count - 1;
      } else if (c == 'N') {
        return fail(ErrorCode::kUnsupported, "\\N escapes are not supported: write \\u and the number")
            .at(fmt::format("chat template line {}", line_));
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  const std::string source_;
  size_t pos_ = 0;
  size_t line_ = 1;
  bool line_starting_ = true;  // the last tag ended with a newline
  std::vector<Token> tokens_;
};

}  // namespace

Expected<std::vector<Token>> tokenize(std::string_view source) {
  std::string text = normalize_newlines(source);
  if (text.ends_with('\n')) text.pop_back();
  return Lexer(std::move(text)).run();
}

}  // namespace nibble::jinja
