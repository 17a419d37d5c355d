// tojson: Python's json.dumps, without the escaping for HTML that Jinja would add.

#include <algorithm>
#include <cmath>

#include "nibble/tokenizer/jinja_runtime.h"

namespace nibble::jinja {
namespace {

void append_json_char(char32_t c, bool ensure_ascii, std::string& out) {
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    case '\f':
      out += "\\f";
      return;
    case '\b':
      out += "\\b";
      return;
    default:
      break;
  }
  const auto code = static_cast<uint32_t>(c);
  if (code < 0x20 || (ensure_ascii && code > 0x7E && code <= 0xFFFF)) {
    out += fmt::format("\\u{:04x}", code);
  } else if (ensure_ascii && code > 0xFFFF) {
    out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((code - 0x10000) >> 10),
                       0xDC00 + ((code - 0x10000) & 0x3FF));
  } else {
    append_utf8(out, c);
  }
}

std::string json_float(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return print_float(value);
}

class JsonWriter {
 public:
  JsonWriter(Run& run, const JsonStyle& style) : run_(run), style_(style) {}

  Status write(const Value& value, size_t level) {
    run_.budget.use(1);
    NIBBLE_RETURN_IF_ERROR(run_.budget.check());
    NIBBLE_RETURN_IF_ERROR(run_.budget.check_text(out.size()));
    if (const Text* text = value.text()) {
      write_text(*text);
      return {};
    }
    if (const Dict* dict = value.dict()) return write_dict(*dict, level);
    const Sequence* sequence = value.sequence();
    if (sequence && sequence->type < SequenceType::kRange) return write_list(sequence->items, level);
    if (const auto scalar = scalar_text(value)) {
      out.append(*scalar);
      return {};
    }
    return raise("Object of type {} is not JSON serializable", type_name(value));
  }

  Text out;

 private:
  static std::optional<std::string> scalar_text(const Value& value) {
    if (value.is_none()) return "null";
    if (const bool* boolean = value.boolean()) return *boolean ? "true" : "false";
    if (const auto integer = value.integer()) return print_int(*integer);
    if (const double* real = value.real()) return json_float(*real);
    return std::nullopt;
  }

  void write_text(const Text& text) {
    out.append("\"");
    out.append(map_chars(
        text, [this](char32_t c, std::string& piece) { append_json_char(c, style_.ensure_ascii, piece); }));
    out.append("\"");
    run_.budget.use_chars(text.size());
  }

  void new_line(size_t level) {
    if (!style_.indent) return;
    std::string line = "\n";
    for (size_t i = 0; i < level; ++i) line += *style_.indent;
    run_.budget.use_bytes(line.size());
    out.append(line);
  }

  Status write_list(const std::vector<Value>& items, size_t level) {
    out.append("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out.append(style_.item_separator);
      new_line(level + 1);
      NIBBLE_RETURN_IF_ERROR(write(items[i], level + 1));
    }
    if (!items.empty()) new_line(level);
    out.append("]");
    return {};
  }

  Status write_dict(const Dict& dict, size_t level) {
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (style_.sort_keys) {
      Status status;
      std::stable_sort(items.begin(), items.end(), [&](const auto* a, const auto* b) {
        if (!status) return false;
        const auto order = compare(run_.budget, a->first, b->first, "<");
        if (!order) status = Failure(order.error());
        return order && *order < 0;
      });
      NIBBLE_RETURN_IF_ERROR(status);
    }
    out.append("{");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out.append(style_.item_separator);
      new_line(level + 1);
      const Value& key = items[i]->first;
      if (const Text* text = key.text()) {
        write_text(*text);
      } else if (const auto scalar = scalar_text(key)) {
        write_text(Text(*scalar));
      } else {
        return raise("keys must be str, int, float, bool or None, not {}", type_name(key));
      }
      out.append(style_.key_separator);
      NIBBLE_RETURN_IF_ERROR(write(items[i]->second, level + 1));
    }
    if (!items.empty()) new_line(level);
    out.append("}");
    return {};
  }

  Run& run_;
  const JsonStyle& style_;
};

}  // namespace

Expected<Value> to_json(Run& run, const Value& value, const JsonStyle& style) {
  JsonWriter writer(run, style);
  NIBBLE_RETURN_IF_ERROR(writer.write(value, 0));
  return run.budget.text(std::move(writer.out));
}

}  // namespace nibble::jinja
