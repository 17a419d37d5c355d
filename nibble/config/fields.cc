#include "nibble/config/fields.h"

#include <algorithm>
#include <limits>

#include "nibble/base/text.h"

namespace nibble {
namespace {

const Json* find_key(const Json& object, std::string_view key) {
  if (!object.is_object() || key.empty()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

const Json* find_value(const Json& object, std::string_view key) {
  const Json* value = find_key(object, key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool is_integer_in(const Json& value, int64_t low, int64_t high) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    return number <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) &&
           static_cast<int64_t>(number) >= low && static_cast<int64_t>(number) <= high;
  }
  if (!value.is_number_integer()) return false;
  return value.get<int64_t>() >= low && value.get<int64_t>() <= high;
}

bool is_token_id(const Json& value) { return is_integer_in(value, -1, std::numeric_limits<int32_t>::max()); }

}  // namespace

void Faults::add_unsupported(std::string text, std::string fix) {
  texts_.push_back(std::move(text));
  if (fix_.empty()) fix_ = std::move(fix);
}

Status Faults::status() const {
  constexpr size_t kShown = 8;
  if (texts_.empty()) return {};
  std::string what;
  for (size_t i = 0; i < std::min(kShown, texts_.size()); ++i) {
    if (i > 0) what += "; ";
    what += texts_[i];
  }
  if (texts_.size() > kShown) what += fmt::format("; and {} more", texts_.size() - kShown);
  const auto code = all_unsupported_ ? ErrorCode::kUnsupported : ErrorCode::kInvalidArgument;
  return Failure(Error{code, what, "", fix_});
}

std::string shown(const Json& value) {
  constexpr size_t kLongest = 60;  // bytes
  std::string text = dump_json(value, -1);
  if (text.size() <= kLongest) return text;
  size_t end = kLongest;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // not inside a character
  return text.substr(0, end) + "...";
}

std::string joined(std::span<const std::string_view> names) {
  return fmt::format("{}", fmt::join(names.begin(), names.end(), ", "));
}

Json with_lower_case_keys(const Json& json, Faults& faults) {
  Json result = Json::object();
  if (!json.is_object()) {
    faults.add("it is {}, but must be an object", json_type_name(json));
    return result;
  }
  for (const auto& [key, value] : json.items()) {
    const std::string lower = lower_case(key);
    if (const Json* other = find_key(result, lower); other != nullptr && *other != value) {
      faults.add("{} stands there twice, as {} and as {}", lower, shown(*other), shown(value));
    }
    result[lower] = value;
  }
  return result;
}

const Json* FieldReader::find(const Field& field) {
  const Json* found = find_value(object_, field.key);
  std::string_view found_as = field.key;
  for (const std::string_view alias : field.aliases) {
    const Json* value = find_value(object_, alias);
    if (value == nullptr) continue;
    if (found == nullptr) {
      found = value;
      found_as = alias;
    } else if (*found != *value) {
      faults_.add("{} is {}, but {} is {}", found_as, shown(*found), alias, shown(*value));
    }
  }
  if (found == nullptr && field.in_meta) {
    if (const Json* meta = find_value(object_, "meta")) found = find_value(*meta, field.key);
  }
  return found;
}

void FieldReader::read(const Field& field, bool& value) {
  const Json* json = find(field);
  if (json == nullptr) return;
  if (json->is_boolean()) {
    value = json->get<bool>();
  } else {
    faults_.add("{} is {}, but must be true or false", field.key, shown(*json));
  }
}

void FieldReader::read(const Field& field, double& value) {
  const Json* json = find(field);
  if (json == nullptr) return;
  if (json->is_number()) {
    value = json->get<double>();
  } else {
    faults_.add("{} is {}, but must be a number", field.key, shown(*json));
  }
}

void FieldReader::read(const Field& field, std::optional<double>& value) {
  if (find_value(object_, field.key) == nullptr) return;
  double number = 0.0;
  read(field, number);
  value = number;
}

void FieldReader::read(const Field& field, std::string& value) {
  const Json* json = find(field);
  if (json == nullptr) return;
  if (json->is_string()) {
    value = json->get<std::string>();
  } else {
    faults_.add("{} is {}, but must be a string", field.key, shown(*json));
  }
}

void FieldReader::read_integer(const Field& field, int64_t low, int64_t high, std::string_view what,
                               int64_t& value) {
  const Json* json = find(field);
  if (json == nullptr) return;
  if (is_integer_in(*json, low, high)) {
    value = json->get<int64_t>();
  } else {
    faults_.add("{} is {}, but must be {}", field.key, shown(*json), what);
  }
}

void FieldReader::read_strings(const Field& field, std::vector<std::string>& value) {
  const Json* json = find(field);
  if (json == nullptr) return;
  std::vector<std::string> strings;
  bool ok = json->is_array();
  const auto add = [&](const Json& item) {
    if (item.is_string()) {
      strings.push_back(item.get<std::string>());
    } else {
      ok = false;
    }
  };
  if (ok) {
    for (const Json& item : *json) {
      if (item.is_array()) {
        for (const Json& inner : item) add(inner);
      } else {
        add(item);
      }
    }
  }
  if (ok) {
    value = std::move(strings);
  } else {
    faults_.add("{} is {}, but must be a list of strings", field.key, shown(*json));
  }
}

void FieldReader::read_token_ids(const Field& field, std::vector<int32_t>& value) {
  const Json* json = find(field);
  if (json == nullptr) return;
  const Json list = json->is_array() ? *json : Json::array({*json});
  std::vector<int32_t> ids;
  for (const Json& item : list) {
    if (!is_token_id(item)) {
      faults_.add("{} is {}, but must be a token id or a list of them", field.key, shown(*json));
      return;
    }
    if (const auto id = item.get<int32_t>(); id >= 0) ids.push_back(id);
  }
  value = std::move(ids);
}

void FieldReader::read_token_id(const Field& field, std::optional<int32_t>& value) {
  const Json* json = find(field);
  if (json == nullptr) return;
  if (!is_token_id(*json)) {
    faults_.add("{} is {}, but must be a token id", field.key, shown(*json));
  } else if (const auto id = json->get<int32_t>(); id >= 0) {
    value = id;
  }
}

void FieldReader::read_dtype(const Field& field, std::optional<DType>& value) {
  const Json* json = find(field);
  if (json == nullptr) return;
  if (json->is_string()) value = dtype_from_torch_name(json->get<std::string>());
  if (!json->is_string() || !value) {
    faults_.add("{} is {}, but must be a type such as \"float16\", \"bfloat16\" or \"float32\"", field.key,
                shown(*json));
  }
}

void write_field(Json& json, const Field& field, const Json& value, bool optional) {
  if (find_key(json, field.key) != nullptr) json[field.key] = value;
  for (const std::string_view alias : field.aliases) {
    if (find_key(json, alias) != nullptr) json[alias] = value;
  }
  if (find_key(json, field.key) != nullptr) return;
  if (field.in_meta) {
    if (const Json* meta = find_key(json, "meta"); meta != nullptr && find_key(*meta, field.key) != nullptr) {
      json["meta"][field.key] = value;
      return;
    }
  }
  if (!optional) json[field.key] = value;
}

bool has_field(const Json& json, const Field& field) {
  if (find_value(json, field.key) != nullptr) return true;
  for (const std::string_view alias : field.aliases) {
    if (find_value(json, alias) != nullptr) return true;
  }
  const Json* meta = field.in_meta ? find_value(json, "meta") : nullptr;
  return meta != nullptr && find_value(*meta, field.key) != nullptr;
}

}  // namespace nibble
