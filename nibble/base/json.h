#ifndef NIBBLE_BASE_JSON_H_
#define NIBBLE_BASE_JSON_H_

// JSON from files and users. Order is kept, so that what is written back reads like what was read.

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "nibble/base/error.h"

// In json.cc, once: it is a fifth of what a file that uses it takes to compile.
extern template class nlohmann::basic_json<nlohmann::ordered_map>;

namespace nibble {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t max_depth = 100;
  bool allow_nan = false;  // Python's json writes NaN and Infinity, which are not JSON
};

// Refuses what is not JSON, deeper nesting, a key twice in one object, and invalid UTF-8; the
// message has the byte position.
Expected<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

// As Python's json.dumps(value, indent=indent, ensure_ascii=False); indent < 0: one line, with
// ", " and ": ".
std::string dump_json(const Json& value, int indent = 2);

// null where JSON has no number for it: NaN and infinities.
Json finite_or_null(double value);

// "null", "a string", "a list"...: for messages.
std::string_view json_type_name(const Json& value);

}  // namespace nibble

#endif  // NIBBLE_BASE_JSON_H_
