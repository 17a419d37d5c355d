#include "nibble/base/json.h"

#include <cmath>
#include <set>
#include <vector>

template class nlohmann::basic_json<nlohmann::ordered_map>;

namespace nibble {
namespace {

// Builds the value event by event, so that depth and duplicate keys are seen while reading (the
// library's own reader keeps the last of two equal keys and does not bound the depth).
class Builder final : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      return refuse(fmt::format("the key \"{}\" stands twice in one object", name));
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    if (message_.empty()) {
      // "[json.exception.parse_error.101] parse error at line 1, column 5: ..." without the number.
      std::string_view text = e.what();
      if (const auto end = text.find("] "); end != text.npos) text.remove_prefix(end + 2);
      message_ = fmt::format("{} (byte {})", text, position);
    }
    return false;
  }

  const std::string& message() const { return message_; }
  Json take() { return std::move(root_); }

 private:
  bool refuse(std::string message) {
    message_ = std::move(message);
    return false;
  }

  Json& place(Json value) {
    if (stack_.empty()) return root_ = std::move(value);
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return parent.back();
    }
    // Keys are known to be new: push_back avoids ordered_json's linear search for each key.
    auto& object = parent.get_ref<Json::object_t&>();
    object.push_back({std::move(key_), std::move(value)});
    return object.back().second;
  }

  bool add(Json value) {
    place(std::move(value));
    return true;
  }

  bool open(Json value) {
    if (stack_.size() >= limits_.max_depth) {
      return refuse(fmt::format("nested deeper than {} levels", limits_.max_depth));
    }
    stack_.push_back(&place(std::move(value)));
    keys_.emplace_back();
    return true;
  }

  bool close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  const JsonLimits limits_;
  Json root_;
  // A container only grows at its end and while it is the innermost one, so pointers to the outer
  // ones stay valid.
  std::vector<Json*> stack_;
  std::vector<std::set<std::string, std::less<>>> keys_;
  std::string key_;
  std::string message_;
};

// Python writes NaN, Infinity and -Infinity; JSON has none of them. Outside strings they are
// replaced by null, which keeps all byte positions but for their length.
std::string without_nan_literals(std::string_view text) {
  std::string out;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      out += c;
      if (c == '\\' && i + 1 < text.size()) out += text[++i];
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    bool replaced = false;
    for (const std::string_view literal : {"NaN", "-Infinity", "Infinity"}) {
      if (text.substr(i).starts_with(literal)) {
        out += "null";
        i += literal.size() - 1;
        replaced = true;
        break;
      }
    }
    if (!replaced) out += c;
  }
  return out;
}

}  // namespace

Expected<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  Builder builder(limits);
  std::string cleaned;
  if (limits.allow_nan) {
    cleaned = without_nan_literals(text);
    text = cleaned;
  }
  const bool ok = Json::sax_parse(text.begin(), text.end(), &builder);
  if (!ok) return fail(ErrorCode::kDataLoss, "not valid JSON: {}", builder.message());
  return builder.take();
}

std::string dump_json(const Json& value, int indent) {
  if (indent >= 0) {
    return value.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
  }
  // The library writes "," and ":" on one line; Python puts a space behind both.
  if (value.is_array() || value.is_object()) {
    std::string out = value.is_array() ? "[" : "{";
    bool first = true;
    for (const auto& [key, item] : value.items()) {
      if (!first) out += ", ";
      first = false;
      if (value.is_object()) out += Json(key).dump(-1, ' ', false, Json::error_handler_t::replace) + ": ";
      out += dump_json(item, indent);
    }
    return out + (value.is_array() ? "]" : "}");
  }
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json finite_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

std::string_view json_type_name(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::boolean:
      return "true or false";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::array:
      return "a list";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::number_float:
      return "a number with a fraction";
    default:
      return "an integer";
  }
}

}  // namespace nibble
