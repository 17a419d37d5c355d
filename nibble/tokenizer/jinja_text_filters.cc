// Filters that make strings and numbers, and those that take anything.

#include <algorithm>
#include <cmath>

#include "nibble/tokenizer/jinja_runtime.h"

namespace nibble::jinja {
namespace {

using Args = BoundArguments;
using Result = Expected<Value>;

// str(self).name(arguments)
Result call_method(Run& run, const Value& self, std::string_view name, std::vector<Value> arguments) {
  NIBBLE_TRY(Text text, to_text(run.budget, self));
  const Value value(std::move(text));
  const Builtin* method = find_builtin(methods_of(value), name);
  NIBBLE_TRY(const BoundArguments bound,
             bind(name, method->parameters, method->required, CallArguments{std::move(arguments), {}}));
  return method->function(run, value, bound);
}

// Results that depend on nothing but str(self).
Result upper(Run& run, const Value& self, const Args&) { return call_method(run, self, "upper", {}); }
Result lower(Run& run, const Value& self, const Args&) { return call_method(run, self, "lower", {}); }
Result capitalize(Run& run, const Value& self, const Args&) {
  return call_method(run, self, "capitalize", {});
}

Result string(Run& run, const Value& self, const Args&) {
  if (self.text()) return self;
  NIBBLE_TRY(Text text, to_text(run.budget, self));
  return run.budget.text(std::move(text));
}

Result trim(Run& run, const Value& self, const Args& args) {
  return call_method(run, self, "strip", {args.at(0) ? *args.at(0) : Value()});
}

Result center_filter(Run& run, const Value& self, const Args& args) {
  return call_method(run, self, "center", {args.at(0) ? *args.at(0) : Value(Int{80})});
}

// Unlike str.title(), a word goes on behind an apostrophe: don't -> Don't.
Result title(Run& run, const Value& self, const Args&) {
  NIBBLE_TRY(const Text text, to_text(run.budget, self));
  run.budget.use_chars(text.size());
  NIBBLE_RETURN_IF_ERROR(run.budget.check());
  Text out;
  const auto is_break = [](char32_t c) {
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_space(c);
  };
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    if (is_break(next_char(text.bytes, pos))) {
      out.append(text, begin, pos);
      continue;
    }
    const size_t first_end = pos;
    for (size_t next = pos; next < text.size() && !is_break(next_char(text.bytes, next));) pos = next;
    out.append(to_upper(text.sub(begin, first_end)));
    out.append(to_lower(text.sub(first_end, pos)));
  }
  return run.budget.text(std::move(out));
}

Result replace_filter(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(Text old, to_text(run.budget, args[0]));
  NIBBLE_TRY(Text fresh, to_text(run.budget, args[1]));
  NIBBLE_TRY(const std::optional<Int> count, args.integer(2));
  return call_method(run, self, "replace",
                     {Value(std::move(old)), Value(std::move(fresh)), Value(count.value_or(-1))});
}

Result indent(Run& run, const Value& self, const Args& args) {
  if (self.undefined()) return raise_undefined(*self.undefined());
  if (!self.text()) return raise("indent needs a string, not '{}'", type_name(self));
  Text indention("    ");
  if (args.at(0) && args[0].text()) {
    indention = *args[0].text();
  } else if (args.at(0)) {
    NIBBLE_TRY(const std::optional<Int> width, args.integer(0));
    NIBBLE_TRY(const Value blanks, arithmetic(run, "*", Value::constant(" "), Value(width.value_or(4))));
    indention = *blanks.text();
  }
  NIBBLE_TRY(const Value lines, call_method(run, self, "splitlines", {}));
  // A newline at the end starts a line, which str.splitlines leaves out.
  std::vector<Value> items = lines.sequence()->items;
  const Text& text = *self.text();
  size_t last = text.size();
  if (text.bytes.empty() || is_line_break(previous_char(text.bytes, last)))
    items.push_back(Value::constant(""));
  Text out;
  if (args.flag(1)) out.append(indention);
  for (size_t i = 0; i < items.size(); ++i) {
    const Text& line = *items[i].text();
    if (i > 0) out.append("\n");
    if (i > 0 && (args.flag(2) || line.size() > 0)) out.append(indention);
    out.append(line);
    NIBBLE_RETURN_IF_ERROR(run.budget.check_text(out.size()));
  }
  return run.budget.text(std::move(out));
}

Result escape(Run& run, const Value& self, const Args&) {
  NIBBLE_TRY(const Text text, to_text(run.budget, self));
  run.budget.use_chars(text.size());
  NIBBLE_RETURN_IF_ERROR(run.budget.check());
  return run.budget.text(map_chars(text, [](char32_t c, std::string& out) {
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
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        append_utf8(out, c);
    }
  }));
}

Result urlencode(Run& run, const Value& self, const Args&) {
  if (!self.text() && is_iterable(self)) return raise("urlencode needs a string, not '{}'", type_name(self));
  NIBBLE_TRY(const Text text, to_text(run.budget, self));
  run.budget.use_chars(text.size());
  NIBBLE_RETURN_IF_ERROR(run.budget.check());
  return run.budget.text(map_chars(text, [](char32_t c, std::string& out) {
    std::string bytes;
    append_utf8(bytes, c);
    for (const char byte : bytes) {
      const bool plain = byte > 0 && (is_alnum(static_cast<char32_t>(byte)) ||
                                      std::string_view("_.-~/").find(byte) != std::string_view::npos);
      out += plain ? std::string(1, byte) : fmt::format("%{:02X}", static_cast<unsigned char>(byte));
    }
  }));
}

Result truncate(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const std::optional<Int> given, args.integer(0));
  NIBBLE_TRY(const Text* end_given, args.text(2));
  NIBBLE_TRY(const std::optional<Int> leeway, args.integer(3));
  NIBBLE_TRY(const size_t count, length(self));
  const Int size = static_cast<Int>(count);
  const Text end = end_given ? *end_given : Text("...");
  const Int length = given.value_or(255);
  const Int end_length = static_cast<Int>(count_chars(end.bytes));
  if (length < end_length) return raise("expected length >= {}, got {}", end_length, length);
  if (leeway.value_or(5) < 0) return raise("expected leeway >= 0, got {}", *leeway);
  if (size <= length || size - length <= leeway.value_or(5)) return self;
  if (!self.text()) return raise("truncate needs a string, not '{}'", type_name(self));
  const Text& text = *self.text();
  Text out = text.sub(0, byte_offset(text.bytes, static_cast<size_t>(length - end_length)));
  if (!args.flag(1)) out = out.sub(0, std::min(out.bytes.rfind(' '), out.size()));
  out.append(end);
  return run.budget.text(std::move(out));
}

Result wordcount(Run& run, const Value& self, const Args&) {
  NIBBLE_TRY(const Text text, to_text(run.budget, self));
  run.budget.use_chars(text.size());
  NIBBLE_RETURN_IF_ERROR(run.budget.check());
  size_t count = 0;
  bool inside = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text.bytes, pos);
    const bool is_word = c == '_' || is_alnum(c);
    if (is_word && !inside) ++count;
    inside = is_word;
  }
  return Value::from_size(count);
}

Result format_filter(Run& run, const Value& self, const Args& args) {
  if (!args.raw.positional.empty() && !args.raw.named.empty()) {
    return raise("can't handle positional and keyword arguments at the same time");
  }
  NIBBLE_TRY(const Text text, to_text(run.budget, self));
  if (args.raw.named.empty()) {
    NIBBLE_TRY(const Value tuple, run.budget.sequence(args.raw.positional, SequenceType::kTuple));
    return format_percent(run, text, tuple);
  }
  std::vector<std::pair<Value, Value>> items;
  for (const auto& [name, value] : args.raw.named) items.emplace_back(Value::constant(name), value);
  NIBBLE_TRY(const Value dict, run.budget.dict(std::move(items)));
  return format_percent(run, text, dict);
}

Result tojson(Run& run, const Value& self, const Args& args) {
  JsonStyle style;
  style.ensure_ascii = args.flag(0);
  style.sort_keys = args.flag(3);
  if (args.at(1) && args[1].text()) {
    style.indent = args[1].text()->bytes;
  } else {
    NIBBLE_TRY(const std::optional<Int> indent, args.integer(1));
    if (indent && *indent > 1000) return raise("an indent cannot be wider than 1000 characters");
    if (indent) style.indent = std::string(static_cast<size_t>(std::max<Int>(*indent, 0)), ' ');
  }
  if (style.indent) style.item_separator = std::string(1, ',');
  if (args.at(2) && !args[2].is_none()) {
    NIBBLE_TRY(const auto separators, to_sequence(run.budget, args[2]));
    if (separators->items.size() != 2 || !separators->items[0].text() || !separators->items[1].text()) {
      return raise("separators must be two strings");
    }
    style.item_separator = separators->items[0].text()->bytes;
    style.key_separator = separators->items[1].text()->bytes;
  }
  return to_json(run, self, style);
}

Result real_to_int(double value, const Value& fallback) {
  if (!(std::fabs(value) < 1.7e38)) return fallback;
  return Value(static_cast<Int>(value));
}

Result to_int(Run&, const Value& self, const Args& args) {
  if (self.undefined()) return raise_undefined(*self.undefined());
  const Value fallback = args.at(0) ? *args.at(0) : Value(Int{0});
  NIBBLE_TRY(const std::optional<Int> base, args.integer(1));
  if (const auto integer = self.integer()) return Value(*integer);
  if (const double* real = self.real()) return real_to_int(*real, fallback);
  if (!self.text()) return fallback;
  const Int radix = base.value_or(10);
  if (radix >= 0 && radix <= 36) {
    if (const auto parsed = parse_int(self.text()->bytes, static_cast<int>(radix))) return Value(*parsed);
  }
  if (const auto real = parse_float(self.text()->bytes)) return real_to_int(*real, fallback);
  return fallback;
}

Result to_float(Run&, const Value& self, const Args& args) {
  if (self.undefined()) return raise_undefined(*self.undefined());
  if (const auto number = self.number()) return Value(*number);
  if (self.text()) {
    if (const auto number = parse_float(self.text()->bytes)) return Value(*number);
  }
  return args.at(0) ? *args.at(0) : Value(0.0);
}

Result absolute(Run&, const Value& self, const Args&) {
  if (const auto integer = self.integer()) return *integer < 0 ? negate(self) : Value(*integer);
  if (const double* real = self.real()) return Value(std::fabs(*real));
  if (self.undefined()) return raise_undefined(*self.undefined());
  return raise("bad operand type for abs(): '{}'", type_name(self));
}

Result round(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const std::optional<Int> precision, args.integer(0));
  NIBBLE_TRY(const Text* method, args.text(1));
  const std::string_view how = method ? method->view() : "common";
  if (how != "common" && how != "ceil" && how != "floor")
    return raise("method must be common, ceil or floor");
  const auto number = self.number();
  if (!number) return raise("type {} doesn't define __round__ method", type_name(self));
  const int digits = static_cast<int>(std::clamp<Int>(precision.value_or(0), -400, 400));
  if (how != "common") {
    NIBBLE_TRY(const Value scale, arithmetic(run, "**", Value(Int{10}), Value(Int{digits})));
    const double scaled = *number * *scale.number();
    const double whole = how == "ceil" ? std::ceil(scaled) : std::floor(scaled);
    NIBBLE_TRY(const Value integer, real_to_int(whole, Value(whole)));
    return arithmetic(run, "/", integer, scale);
  }
  if (!self.integer()) return Value(round_to(*number, digits));
  if (digits >= 0) return Value(*self.integer());
  if (digits < -37) return Value(Int{0});
  // To the nearest multiple of a power of ten, and to an even one from the middle.
  Int unit = 1;
  for (int i = digits; i < 0; ++i) unit *= 10;
  NIBBLE_TRY(const Value rest_value, arithmetic(run, "%", self, Value(unit)));
  const Int rest = *rest_value.integer();
  const Int down = *self.integer() - rest;
  const bool up = rest > unit / 2 || (rest == unit / 2 && down / unit % 2 != 0);
  return arithmetic(run, "+", Value(down), Value(up ? unit : Int{0}));
}

Result filesizeformat(Run&, const Value& self, const Args& args) {
  const auto number = self.text() ? parse_float(self.text()->bytes) : self.number();
  if (!number) return raise("a size must be a number, not '{}'", type_name(self));
  const double bytes = *number;
  const double base = args.flag(0) ? 1024 : 1000;
  if (bytes == 1) return Value::constant("1 Byte");
  if (bytes < base) return Value::constant(fmt::format("{:.0f} Bytes", std::trunc(bytes)));
  double unit = base * base;
  size_t prefix = 0;
  for (; prefix < 7 && bytes >= unit; ++prefix) unit *= base;
  const char letter = args.flag(0) ? "KMGTPEZY"[prefix] : "kMGTPEZY"[prefix];
  return Value::constant(fmt::format("{:.1f} {}{}", base * bytes / unit, letter, args.flag(0) ? "iB" : "B"));
}

Result default_value(Run&, const Value& self, const Args& args) {
  if (!self.undefined() && !(args.flag(1) && !is_true(self))) return self;
  return args.at(0) ? *args.at(0) : Value::constant("");
}

Result attribute(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const Text* name, args.text(0));
  if (!name) return raise("attribute name must be string, not 'NoneType'");
  NIBBLE_TRY(const std::optional<Value> found, run.own_attribute(self, name->bytes));
  if (found) return *found;
  return Value::undefined(
      fmt::format("'{} object' has no attribute {}", type_name(self), python_quoted(name->bytes)));
}

constexpr Builtin kTextFilters[] = {
    {"abs", "", 0, absolute},
    {"attr", "name", 1, attribute},
    {"capitalize", "", 0, capitalize},
    {"center", "width", 0, center_filter},
    {"d", "default_value boolean", 0, default_value},
    {"default", "default_value boolean", 0, default_value},
    {"e", "", 0, escape},
    {"escape", "", 0, escape},
    {"filesizeformat", "binary", 0, filesizeformat},
    {"float", "default", 0, to_float},
    {"forceescape", "", 0, escape},
    {"format", "*", 0, format_filter},
    {"indent", "width first blank", 0, indent},
    {"int", "default base", 0, to_int},
    {"lower", "", 0, lower},
    {"replace", "old new count", 2, replace_filter},
    {"round", "precision method", 0, round},
    {"safe", "", 0, string},
    {"string", "", 0, string},
    {"title", "", 0, title},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, tojson},
    {"trim", "chars", 0, trim},
    {"truncate", "length killwords end leeway", 0, truncate},
    {"upper", "", 0, upper},
    {"urlencode", "", 0, urlencode},
    {"wordcount", "", 0, wordcount},
};

}  // namespace

std::span<const Builtin> text_filters() { return kTextFilters; }

}  // namespace nibble::jinja
