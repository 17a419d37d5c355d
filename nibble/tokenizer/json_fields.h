#ifndef NIBBLE_TOKENIZER_JSON_FIELDS_H_
#define NIBBLE_TOKENIZER_JSON_FIELDS_H_

// Reading the small objects of tokenizer.json, with errors that name the field.

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "nibble/base/json.h"

namespace nibble {

// The field, or null if `json` is not an object or the field is missing or null.
const Json* find_field(const Json& json, std::string_view name);

// Required without a fallback. A present field of another type is an error either way.
Expected<bool> bool_field(const Json& json, std::string_view name, std::optional<bool> fallback = {});
Expected<std::string> string_field(const Json& json, std::string_view name,
                                   std::optional<std::string> fallback = {});
Expected<size_t> size_field(const Json& json, std::string_view name, std::optional<size_t> fallback = {});
// A string of exactly one character.
Expected<char32_t> char_field(const Json& json, std::string_view name);
// An array; absent or null is an error.
Expected<const Json*> list_field(const Json& json, std::string_view name);

// A row of a table of components: the "type" of tokenizer.json and what reads it.
template <class Step>
using ComponentParser = std::pair<std::string_view, Expected<Step> (*)(const Json&)>;

// Finds the row of `json`'s "type". `what`: "normalizer".
Status unknown_component(std::string_view what, const Json& json, std::string_view known);

template <class Step>
Expected<Step> parse_component(std::string_view what, const Json& json,
                               std::span<const ComponentParser<Step>> table) {
  const Json* type = find_field(json, "type");
  std::string known = "Sequence";
  for (const auto& [name, parse] : table) {
    if (type && type->is_string() && type->get_ref<const std::string&>() == name)
      return at(name, parse(json));
    known += ", ";
    known += name;
  }
  return Failure(unknown_component(what, json, known).error());
}

// Whether `json` is {"type": "Sequence"}.
bool is_sequence(const Json& json);

// Calls parse_one for `json`, or for each member of a Sequence named `members`, however deep.
Status for_each_component(const Json& json, std::string_view members,
                          const std::function<Status(const Json&)>& parse_one);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_JSON_FIELDS_H_
