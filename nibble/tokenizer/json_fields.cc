#include "nibble/tokenizer/json_fields.h"

#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

Failure wrong_type(const Json& json, std::string_view name, std::string_view wanted) {
  const Json* field = find_field(json, name);
  return fail(ErrorCode::kDataLoss, "\"{}\" must be {}, not {}", name, wanted,
              field ? json_type_name(*field) : "missing");
}

}  // namespace

const Json* find_field(const Json& json, std::string_view name) {
  if (!json.is_object()) return nullptr;
  for (const auto& [key, value] : json.get_ref<const Json::object_t&>()) {
    if (key == name) return value.is_null() ? nullptr : &value;
  }
  return nullptr;
}

Expected<bool> bool_field(const Json& json, std::string_view name, std::optional<bool> fallback) {
  const Json* field = find_field(json, name);
  if (!field && fallback) return *fallback;
  if (!field || !field->is_boolean()) return wrong_type(json, name, "true or false");
  return field->get<bool>();
}

Expected<std::string> string_field(const Json& json, std::string_view name,
                                   std::optional<std::string> fallback) {
  const Json* field = find_field(json, name);
  if (!field && fallback) return std::move(*fallback);
  if (!field || !field->is_string()) return wrong_type(json, name, "a string");
  return field->get<std::string>();
}

Expected<size_t> size_field(const Json& json, std::string_view name, std::optional<size_t> fallback) {
  const Json* field = find_field(json, name);
  if (!field && fallback) return *fallback;
  if (!field || !field->is_number_integer() || *field < 0) return wrong_type(json, name, "a count");
  return field->get<size_t>();
}

Expected<char32_t> char_field(const Json& json, std::string_view name) {
  NIBBLE_TRY(const std::string text, string_field(json, name));
  if (text.empty() || decode_utf8(text, 0).size != text.size()) {
    return fail(ErrorCode::kDataLoss, "\"{}\" must be one character, not \"{}\"", name, text);
  }
  return decode_utf8(text, 0).value;
}

Expected<const Json*> list_field(const Json& json, std::string_view name) {
  const Json* field = find_field(json, name);
  if (!field || !field->is_array()) return wrong_type(json, name, "a list");
  return field;
}

Status unknown_component(std::string_view what, const Json& json, std::string_view known) {
  const Json* type = find_field(json, "type");
  if (!type || !type->is_string()) {
    return fail(ErrorCode::kDataLoss, "the {} has no \"type\"", what);
  }
  return fail(ErrorCode::kUnsupported, "{} of type \"{}\" is not supported", what,
              type->get_ref<const std::string&>())
      .with_fix(fmt::format("Supported: {}.", known));
}

bool is_sequence(const Json& json) {
  const Json* type = find_field(json, "type");
  return type && *type == "Sequence";
}

Status for_each_component(const Json& json, std::string_view members,
                          const std::function<Status(const Json&)>& parse_one) {
  if (!is_sequence(json)) return parse_one(json);
  NIBBLE_TRY(const Json* list, list_field(json, members));
  // parse_json has bounded the depth.
  for (size_t i = 0; i < list->size(); ++i) {
    NIBBLE_RETURN_IF_ERROR(
        at(fmt::format("{}[{}]", members, i), for_each_component((*list)[i], members, parse_one)));
  }
  return {};
}

}  // namespace nibble
