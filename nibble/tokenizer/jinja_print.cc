// str() and repr() of values.

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <iterator>

#include "nibble/tokenizer/jinja_value.h"

namespace nibble::jinja {
namespace {

constexpr size_t kMaxReprDepth = 250;  // namespaces can contain themselves

// One character of a repr. The quote is escaped if it is the one around the string.
void append_escaped(char32_t c, char32_t quote, std::string& out) {
  if (c == quote || c == '\\') {
    out += '\\';
    out += static_cast<char>(c);
  } else if (c == '\n') {
    out += "\\n";
  } else if (c == '\r') {
    out += "\\r";
  } else if (c == '\t') {
    out += "\\t";
  } else if (is_printable(c)) {
    append_utf8(out, c);
  } else if (c <= 0xFF) {
    out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
  } else if (c <= 0xFFFF) {
    out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
  } else {
    out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
  }
}

char quote_for(std::string_view text) {
  return text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
}

class Printer {
 public:
  explicit Printer(Budget& budget) : budget_(budget) {}

  Status repr(const Value& value, Text& out) {
    budget_.use(1);
    NIBBLE_RETURN_IF_ERROR(budget_.check());
    NIBBLE_RETURN_IF_ERROR(budget_.check_text(out.size()));
    if (++depth_ > kMaxReprDepth) return raise("a value is nested too deeply to be printed");
    const Status status = repr_inner(value, out);
    --depth_;
    return status;
  }

 private:
  Status repr_inner(const Value& value, Text& out) {
    if (const Text* text = value.text()) {
      const char quote = quote_for(text->bytes);
      out.append(std::string(1, quote));
      out.append(map_chars(*text, [quote](char32_t c, std::string& piece) {
        append_escaped(c, static_cast<char32_t>(quote), piece);
      }));
      out.append(std::string(1, quote));
      budget_.use_bytes(text->size());
      return {};
    }
    if (const Dict* dict = value.dict()) return repr_items(dict->items, "{", "}", out);
    if (const Sequence* sequence = value.sequence()) return repr_sequence(*sequence, type_name(value), out);
    if (const auto* names = dynamic_cast<const Namespace*>(value.object())) {
      std::vector<std::pair<Value, Value>> items;
      for (const auto& [name, attribute] : names->attributes)
        items.emplace_back(Value::constant(name), attribute);
      return repr_items(items, "<Namespace {", "}>", out);
    }
    out.append(repr_scalar(value));
    return {};
  }

  static std::string repr_scalar(const Value& value) {
    if (value.undefined()) return "Undefined";
    if (value.is_none()) return "None";
    if (const bool* boolean = value.boolean()) return *boolean ? "True" : "False";
    if (const auto integer = value.integer()) return print_int(*integer);
    if (const double* real = value.real()) return print_float(*real);
    if (const Iterator* iterator = value.iterator()) return fmt::format("<{} object>", iterator->type);
    return value.object()->repr();
  }

  Status repr_items(const std::vector<std::pair<Value, Value>>& items, std::string_view open,
                    std::string_view close, Text& out) {
    out.append(open);
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out.append(", ");
      NIBBLE_RETURN_IF_ERROR(repr(items[i].first, out));
      out.append(": ");
      NIBBLE_RETURN_IF_ERROR(repr(items[i].second, out));
    }
    out.append(close);
    return {};
  }

  Status repr_sequence(const Sequence& sequence, const std::string& type, Text& out) {
    if (sequence.type == SequenceType::kRange) {
      const auto& [start, stop, step] = sequence.range;
      out.append(fmt::format("range({}, {}{})", start, stop, step == 1 ? "" : fmt::format(", {}", step)));
      return {};
    }
    const bool tuple = sequence.type == SequenceType::kTuple || sequence.type == SequenceType::kGroup;
    const bool view = sequence.type > SequenceType::kRange;
    if (view) out.append(type + "(");
    out.append(tuple ? "(" : "[");
    for (size_t i = 0; i < sequence.items.size(); ++i) {
      if (i > 0) out.append(", ");
      NIBBLE_RETURN_IF_ERROR(repr(sequence.items[i], out));
    }
    if (tuple && sequence.items.size() == 1) out.append(",");
    out.append(tuple ? ")" : "]");
    if (view) out.append(")");
    return {};
  }

  Budget& budget_;
  size_t depth_ = 0;
};

}  // namespace

std::string print_int(Int value) { return fmt::format("{}", value); }

std::string print_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  // The shortest digits that read back as the same number: d.ddde±xx.
  char buffer[40];
  const auto end =
      std::to_chars(std::begin(buffer), std::end(buffer), value, std::chars_format::scientific).ptr;
  const std::string_view scientific(buffer, static_cast<size_t>(end - buffer));
  const size_t e = scientific.find('e');
  const int exponent = std::atoi(std::string(scientific.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) return std::string(scientific);
  std::string digits;
  for (const char c : scientific.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  const std::string sign = std::signbit(value) ? "-" : "";
  if (exponent < 0) return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string python_quoted(std::string_view text) {
  const char quote = quote_for(text);
  std::string out(1, quote);
  for (size_t pos = 0; pos < text.size();)
    append_escaped(next_char(text, pos), static_cast<char32_t>(quote), out);
  return out + quote;
}

Expected<Text> to_repr(Budget& budget, const Value& value) {
  Text out;
  NIBBLE_RETURN_IF_ERROR(Printer(budget).repr(value, out));
  return out;
}

Expected<Text> to_text(Budget& budget, const Value& value) {
  if (const Text* text = value.text()) {
    budget.use_bytes(text->size());
    return *text;
  }
  if (value.undefined()) return Text();
  return to_repr(budget, value);
}

}  // namespace nibble::jinja
