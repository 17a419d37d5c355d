// "%s is %d" % (...), "{} is {:>8}".format(...), and the numbers that they print.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "nibble/tokenizer/jinja_runtime.h"

namespace nibble::jinja {
namespace {

// [[fill]align][sign][#][0][width][,][.precision][type]
struct Spec {
  std::string fill = " ";
  char align = '\0';
  char sign = '-';
  bool alternate = false;
  char grouping = '\0';
  size_t width = 0;
  std::optional<size_t> precision;
  char type = '\0';
};

constexpr size_t kMaxNumber = 100'000;  // widths and precisions beyond are nonsense

// The decimal number at `pos`, or nothing.
Expected<std::optional<size_t>> read_size(std::string_view text, size_t& pos) {
  if (pos >= text.size() || text[pos] < '0' || text[pos] > '9') return std::optional<size_t>();
  size_t value = 0;
  for (; pos < text.size() && text[pos] >= '0' && text[pos] <= '9'; ++pos) {
    value = value * 10 + static_cast<size_t>(text[pos] - '0');
    if (value > kMaxNumber) return raise("a width or precision in a format is too large");
  }
  return std::optional<size_t>(value);
}

bool is_one_of(std::string_view set, char c) { return set.find(c) != std::string_view::npos; }

Expected<Spec> parse_spec(std::string_view text) {
  Spec spec;
  size_t pos = 0;
  if (!text.empty()) {
    size_t behind_fill = 0;
    next_char(text, behind_fill);
    if (behind_fill < text.size() && is_one_of("<>=^", text[behind_fill])) {
      spec.fill = std::string(text.substr(0, behind_fill));
      spec.align = text[behind_fill];
      pos = behind_fill + 1;
    } else if (is_one_of("<>=^", text[0])) {
      spec.align = text[pos++];
    }
  }
  const auto skip_one_of = [&](std::string_view set) {
    return pos < text.size() && is_one_of(set, text[pos]) ? text[pos++] : '\0';
  };
  if (const char sign = skip_one_of("+- ")) spec.sign = sign;
  spec.alternate = skip_one_of("#") != '\0';
  if (skip_one_of("0") && !spec.align) {
    spec.fill = "0";
    spec.align = '=';
  }
  NIBBLE_TRY(const std::optional<size_t> width, read_size(text, pos));
  spec.width = width.value_or(0);
  spec.grouping = skip_one_of(",_");
  if (skip_one_of(".")) {
    NIBBLE_TRY(spec.precision, read_size(text, pos));
    if (!spec.precision) return raise("Format specifier missing precision");
  }
  spec.type = skip_one_of("bcdeEfFgGnosxX%");
  if (pos != text.size()) return raise("Invalid format specifier {}", python_quoted(text));
  return spec;
}

std::string grouped(const std::string& digits, char separator) {
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += separator;
    out += digits[i];
  }
  return out;
}

std::string pad(const std::string& fill, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += fill;
  return out;
}

// `sign`: a sign or prefix that stays in front of the padding of `=`.
Text aligned(const Spec& spec, const std::string& sign, const Text& body, char default_align) {
  const size_t used = count_chars(sign) + count_chars(body.bytes);
  const size_t missing = spec.width > used ? spec.width - used : 0;
  const char align = spec.align ? spec.align : default_align;
  const size_t left = align == '<' || align == '=' ? 0 : align == '^' ? missing / 2 : missing;
  Text out(pad(spec.fill, left) + sign);
  if (align == '=') out.append(pad(spec.fill, missing));
  out.append(body);
  if (align != '=') out.append(pad(spec.fill, missing - left));
  return out;
}

std::string print_magnitude(Int value, unsigned base, bool upper) {
  std::string out;
  do {
    const auto digit = static_cast<unsigned>(value % static_cast<Int>(base));
    out += (upper ? "0123456789ABCDEF" : "0123456789abcdef")[digit];
    value /= static_cast<Int>(base);
  } while (value != 0);
  std::reverse(out.begin(), out.end());
  return out;
}

std::string sign_of(bool negative, char sign) {
  return negative ? "-" : sign == '-' ? "" : std::string(1, sign);
}

Expected<Text> format_int(const Spec& spec, Int value) {
  const bool negative = value < 0;
  Int magnitude = value;
  if (negative && __builtin_sub_overflow(Int{0}, value, &magnitude)) return raise("an integer is too large");
  std::string prefix;
  std::string digits;
  switch (spec.type) {
    case 'x':
    case 'X':
      digits = print_magnitude(magnitude, 16, spec.type == 'X');
      prefix = std::string("0") + spec.type;
      break;
    case 'o':
      digits = print_magnitude(magnitude, 8, false);
      prefix = "0o";
      break;
    case 'b':
      digits = print_magnitude(magnitude, 2, false);
      prefix = "0b";
      break;
    case 'c':
      if (negative || magnitude > 0x10FFFF || (magnitude >= 0xD800 && magnitude <= 0xDFFF)) {
        return raise("%c arg not in range(0x110000)");
      }
      append_utf8(digits, static_cast<char32_t>(magnitude));
      return aligned(spec, "", Text(digits), '<');
    default:
      digits = print_magnitude(magnitude, 10, false);
  }
  if (spec.grouping) digits = grouped(digits, spec.grouping);
  return aligned(spec, sign_of(negative, spec.sign) + (spec.alternate ? prefix : ""), Text(digits), '>');
}

// As C's printf would, but for infinity and NaN.
std::string print_real(double value, char type, size_t precision, bool alternate) {
  const bool upper = type >= 'A' && type <= 'Z';
  if (std::isnan(value)) return upper ? "NAN" : "nan";
  if (std::isinf(value)) return upper ? "INF" : "inf";
  const std::string format = std::string(alternate ? "%#.*" : "%.*") + type;
  const int size = std::snprintf(nullptr, 0, format.c_str(), static_cast<int>(precision), value);
  std::string out(static_cast<size_t>(size), '\0');
  std::snprintf(out.data(), out.size() + 1, format.c_str(), static_cast<int>(precision), value);
  return out;
}

Text format_float(const Spec& spec, double value) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double magnitude = negative ? -value : value;
  std::string digits;
  if (spec.type == '%') {
    digits = print_real(magnitude * 100, 'f', spec.precision.value_or(6), spec.alternate) + "%";
  } else if (!spec.type) {
    digits = print_float(magnitude);
    if (spec.precision) {
      digits = print_real(magnitude, 'g', std::max<size_t>(*spec.precision, 1), spec.alternate);
      if (std::isfinite(magnitude) && digits.find_first_of(".e") == std::string::npos) digits += ".0";
    }
  } else {
    digits =
        print_real(magnitude, spec.type == 'n' ? 'g' : spec.type, spec.precision.value_or(6), spec.alternate);
  }
  if (spec.grouping) {
    const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
    digits = grouped(digits.substr(0, whole), spec.grouping) + digits.substr(whole);
  }
  return aligned(spec, sign_of(negative, spec.sign), Text(digits), '>');
}

Text format_text(const Spec& spec, const Text& text) {
  const size_t end = spec.precision ? byte_offset(text.bytes, *spec.precision) : text.size();
  return aligned(spec, "", text.sub(0, end), '<');
}

// format(value, spec) of Python.
Expected<Text> format_value(Run& run, const Value& value, std::string_view spec_text) {
  if (spec_text.empty()) return to_text(run.budget, value);
  NIBBLE_TRY(const Spec spec, parse_spec(spec_text));
  if (const Text* text = value.text()) {
    if ((spec.type && spec.type != 's') || spec.sign != '-' || spec.grouping ||
        (spec.align == '=' && spec.fill != "0")) {
      return raise("Invalid format specifier {} for object of type 'str'", python_quoted(spec_text));
    }
    Spec padded = spec;
    if (padded.align == '=') padded.align = '<';
    return format_text(padded, *text);
  }
  const bool wants_float = spec.type && is_one_of("eEfFgG%", spec.type);
  if (value.integer() && !wants_float) {
    if (spec.type == 's' || spec.precision) {
      return raise("Invalid format specifier {} for object of type 'int'", python_quoted(spec_text));
    }
    return format_int(spec, *value.integer());
  }
  if (const auto number = value.number()) {
    if (spec.type && !wants_float && spec.type != 'n') {
      return raise("Unknown format code '{}' for object of type 'float'", spec.type);
    }
    return format_float(spec, *number);
  }
  return raise("unsupported format string passed to {}.__format__", type_name(value));
}

Expected<Text> converted(Run& run, char conversion, const Value& value) {
  if (conversion == 'r' || conversion == 'a') return to_repr(run.budget, value);
  if (conversion == 's') return to_text(run.budget, value);
  return raise("Unknown conversion specifier {}", python_quoted(std::string(1, conversion)));
}

// The replacement fields of str.format. The attributes they name go through the same gate as
// everything else in a template.
class BraceFormatter {
 public:
  BraceFormatter(Run& run, const CallArguments& arguments) : run_(run), arguments_(arguments) {}

  Expected<Text> format(const Text& pattern, size_t nesting) {
    const std::string_view text = pattern.bytes;
    if (nesting > 2) return raise("Max string recursion exceeded");
    Text out;
    for (size_t pos = 0; pos < text.size();) {
      const size_t brace = std::min(text.find_first_of("{}", pos), text.size());
      out.append(pattern, pos, brace);
      if (brace == text.size()) break;
      if (brace + 1 < text.size() && text[brace + 1] == text[brace]) {
        out.append(pattern, brace, brace + 1);
        pos = brace + 2;
        continue;
      }
      if (text[brace] == '}') return raise("Single '}}' encountered in format string");
      size_t end = brace + 1;
      for (size_t open = 1; end < text.size(); ++end) {
        if (text[end] == '{') ++open;
        if (text[end] == '}' && --open == 0) break;
      }
      if (end == text.size()) return raise("expected '}}' before end of string");
      NIBBLE_TRY(const Text field, format_field(pattern.sub(brace + 1, end), nesting));
      out.append(field);
      NIBBLE_RETURN_IF_ERROR(run_.budget.check_text(out.size()));
      run_.budget.use(1);
      NIBBLE_RETURN_IF_ERROR(run_.budget.check());
      pos = end + 1;
    }
    return out;
  }

 private:
  // name!conversion:spec
  Expected<Text> format_field(const Text& field, size_t nesting) {
    std::string_view name = field.bytes;
    const size_t name_end = std::min(name.find_first_of("!:"), name.size());
    char conversion = '\0';
    Text spec;
    if (name_end < name.size()) {
      size_t pos = name_end;
      if (name[pos] == '!') {
        if (pos + 1 >= name.size()) return raise("end of string while looking for conversion specifier");
        conversion = name[pos + 1];
        pos += 2;
        if (pos < name.size() && name[pos] != ':') return raise("expected ':' after conversion specifier");
      }
      if (pos < name.size()) spec = field.sub(pos + 1, field.size());
    }
    NIBBLE_TRY(Value value, lookup(name.substr(0, name_end)));
    if (conversion) {
      NIBBLE_TRY(Text text, converted(run_, conversion, value));
      value = Value(std::move(text));
    }
    NIBBLE_TRY(const Text spec_text, format(spec, nesting + 1));
    return format_value(run_, value, spec_text.bytes);
  }

  // first(.name | [index])*
  Expected<Value> lookup(std::string_view path) {
    const size_t first_end = std::min(path.find_first_of(".["), path.size());
    NIBBLE_TRY(Value value, argument(path.substr(0, first_end)));
    for (size_t pos = first_end; pos < path.size();) {
      const bool is_attribute = path[pos] == '.';
      const size_t begin = pos + 1;
      const size_t end =
          is_attribute ? std::min(path.find_first_of(".[", begin), path.size()) : path.find(']', begin);
      if (end == path.npos || end == begin) return raise("Empty attribute or missing ']' in format string");
      const std::string key(path.substr(begin, end - begin));
      if (is_attribute) {
        NIBBLE_TRY(value, run_.attribute(value, key));
      } else {
        const auto index = parse_int(key, 10);
        NIBBLE_TRY(value, run_.item(value, index ? Value(*index) : Value::constant(key)));
      }
      pos = is_attribute ? end : end + 1;
      if (pos < path.size() && path[pos] != '.' && path[pos] != '[') {
        return raise("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  Expected<Value> argument(std::string_view name) {
    size_t index = next_;
    size_t pos = 0;
    NIBBLE_TRY(const std::optional<size_t> number, read_size(name, pos));
    if (number && pos == name.size()) {
      index = *number;
    } else if (!name.empty()) {
      for (const auto& [key, value] : arguments_.named) {
        if (key == name) return value;
      }
      return raise("format() has no argument {}", python_quoted(name));
    } else {
      ++next_;
    }
    if (index >= arguments_.positional.size()) {
      return raise("Replacement index {} out of range for positional args tuple", index);
    }
    return arguments_.positional[index];
  }

  Run& run_;
  const CallArguments& arguments_;
  size_t next_ = 0;
};

// The arguments of a % format.
class PercentArguments {
 public:
  explicit PercentArguments(const Value& value) : value_(value) {
    const Sequence* sequence = value.sequence();
    tuple_ = sequence && (sequence->type == SequenceType::kTuple || sequence->type == SequenceType::kGroup)
                 ? sequence
                 : nullptr;
  }

  Expected<Value> named(const std::string& name) {
    if (!value_.dict()) return raise("format requires a mapping");
    const Value* found = value_.dict()->find(name);
    if (!found) return raise("the format has no value for {}", python_quoted(name));
    return *found;
  }

  Expected<Value> next() {
    const size_t index = next_++;
    if (!tuple_ && index == 0) return value_;
    if (!tuple_ || index >= tuple_->items.size()) return raise("not enough arguments for format string");
    return tuple_->items[index];
  }

  Status check_all_used() const {
    const bool all_used = tuple_ ? next_ >= tuple_->items.size()
                                 : next_ > 0 || value_.dict() || value_.undefined() ||
                                       (value_.sequence() && value_.sequence()->type <= SequenceType::kRange);
    if (all_used) return {};
    return raise("not all arguments converted during string formatting");
  }

 private:
  const Value& value_;
  const Sequence* tuple_ = nullptr;
  size_t next_ = 0;
};

Expected<Text> format_percent_value(Run& run, Spec spec, const Value& value) {
  switch (spec.type) {
    case 's':
    case 'r':
    case 'a': {
      NIBBLE_TRY(const Text text, converted(run, spec.type, value));
      if (!spec.align) spec.align = '>';
      return format_text(spec, text);
    }
    case 'c':
      if (value.text()) {
        if (count_chars(value.text()->bytes) != 1) return raise("%c requires int or char");
        if (!spec.align) spec.align = '>';
        return format_text(spec, *value.text());
      }
      break;
    default:
      break;
  }
  const auto number = value.number();
  if (!number) return raise("%{} format: a real number is required, not {}", spec.type, type_name(value));
  if (is_one_of("eEfFgG", spec.type)) return format_float(spec, *number);
  if (spec.type == 'i' || spec.type == 'u') spec.type = 'd';
  if (value.integer()) return format_int(spec, *value.integer());
  if (spec.type != 'd' || !(std::fabs(*number) < 1e37)) {
    return raise("%{} format: an integer is required, not float", spec.type);
  }
  return format_int(spec, static_cast<Int>(*number));
}

}  // namespace

Expected<Value> format_braces(Run& run, const Text& format, const CallArguments& arguments) {
  NIBBLE_TRY(Text out, BraceFormatter(run, arguments).format(format, 0));
  return run.budget.text(std::move(out));
}

Expected<Value> format_percent(Run& run, const Text& format, const Value& value) {
  const std::string_view text = format.bytes;
  PercentArguments arguments(value);
  Text out;
  for (size_t pos = 0; pos < text.size();) {
    const size_t percent = std::min(text.find('%', pos), text.size());
    out.append(format, pos, percent);
    if (percent == text.size()) break;
    pos = percent + 1;
    std::optional<std::string> name;
    if (pos < text.size() && text[pos] == '(') {
      const size_t end = text.find(')', pos);
      if (end == text.npos) return raise("incomplete format key");
      name = std::string(text.substr(pos + 1, end - pos - 1));
      pos = end + 1;
    }
    Spec spec;
    bool zero = false;
    for (; pos < text.size() && is_one_of("#0- +", text[pos]); ++pos) {
      if (text[pos] == '-') spec.align = '<';
      if (text[pos] == '0') zero = true;
      if (text[pos] == '+' || (text[pos] == ' ' && spec.sign != '+')) spec.sign = text[pos];
      if (text[pos] == '#') spec.alternate = true;
    }
    NIBBLE_TRY(const std::optional<size_t> width, read_size(text, pos));
    spec.width = width.value_or(0);
    if (pos < text.size() && text[pos] == '.') {
      ++pos;
      NIBBLE_TRY(const std::optional<size_t> precision, read_size(text, pos));
      spec.precision = precision.value_or(0);
    }
    if (pos == text.size()) return raise("incomplete format");
    spec.type = text[pos++];
    if (spec.type == '%') {
      out.append("%");
      continue;
    }
    if (!is_one_of("sracdiuoxXeEfFgG", spec.type)) {
      return raise("unsupported format character {}", python_quoted(std::string(1, spec.type)));
    }
    if (zero && !spec.align && !is_one_of("srac", spec.type)) {
      spec.fill = "0";
      spec.align = '=';
    }
    NIBBLE_TRY(const Value argument, name ? arguments.named(*name) : arguments.next());
    NIBBLE_TRY(const Text piece, format_percent_value(run, spec, argument));
    out.append(piece);
    NIBBLE_RETURN_IF_ERROR(run.budget.check_text(out.size()));
    run.budget.use(1);
    NIBBLE_RETURN_IF_ERROR(run.budget.check());
  }
  NIBBLE_RETURN_IF_ERROR(arguments.check_all_used());
  return run.budget.text(std::move(out));
}

double round_to(double value, int digits) {
  if (!std::isfinite(value) || digits > 300) return value;
  if (digits < -308) return std::copysign(0.0, value);
  if (digits < 0) {
    const double scale = std::pow(10.0, -digits);
    const double scaled = value / scale;
    double rounded = std::round(scaled);
    if (std::fabs(scaled - rounded) == 0.5) rounded = 2.0 * std::round(scaled / 2.0);
    return rounded * scale;
  }
  // The decimal digits that printf rounds correctly, read back.
  return std::strtod(print_real(value, 'f', static_cast<size_t>(digits), false).c_str(), nullptr);
}

std::optional<Int> parse_int(std::string_view text, int base) {
  const TextRange range = strip_range(text, is_space, true, true);
  text = text.substr(range.begin, range.end - range.begin);
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.size() > 2 && text[0] == '0') {
    const char mark = static_cast<char>(text[1] | 0x20);
    const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked && (base == marked || base == 0)) {
      text.remove_prefix(2);
      base = marked;
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36 || text.empty()) return std::nullopt;
  Int value = 0;
  bool digit_before = false;
  for (const char c : text) {
    const char lower = static_cast<char>(c | 0x20);
    const int digit = c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'z' ? lower - 'a' + 10 : 99;
    if (c == '_' && digit_before) {
      digit_before = false;
      continue;
    }
    if (digit >= base || __builtin_mul_overflow(value, base, &value) ||
        __builtin_add_overflow(value, digit, &value)) {
      return std::nullopt;
    }
    digit_before = true;
  }
  if (!digit_before) return std::nullopt;
  return negative ? -value : value;
}

std::optional<double> parse_float(std::string_view text) {
  const TextRange range = strip_range(text, is_space, true, true);
  std::string lower(text.substr(range.begin, range.end - range.begin));
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; });
  std::string_view body = lower;
  const double sign = body.starts_with('-') ? -1.0 : 1.0;
  if (body.starts_with('-') || body.starts_with('+')) body.remove_prefix(1);
  if (body == "inf" || body == "infinity") return sign * HUGE_VAL;
  if (body == "nan") return std::nan("");
  std::string digits;
  for (size_t i = 0; i < body.size(); ++i) {
    const auto is_digit_at = [&](size_t at) {
      return at < body.size() && body[at] >= '0' && body[at] <= '9';
    };
    if (body[i] == '_') {
      if (i == 0 || !is_digit_at(i - 1) || !is_digit_at(i + 1)) return std::nullopt;
      continue;
    }
    digits += body[i];
  }
  if (digits.empty() || digits.find_first_not_of("0123456789.e+-") != digits.npos || digits[0] == '+' ||
      digits[0] == '-') {
    return std::nullopt;
  }
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end);
  if (end != digits.c_str() + digits.size()) return std::nullopt;
  return sign * value;
}

}  // namespace nibble::jinja
