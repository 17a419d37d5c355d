#ifndef NIBBLE_CONFIG_FIELDS_H_
#define NIBBLE_CONFIG_FIELDS_H_

// How the configurations read their JSON: by field, under all names a field has had, with every fault
// of a file collected and reported at once.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nibble/base/dtype.h"
#include "nibble/base/json.h"

namespace nibble {

// What is wrong with one configuration.
class Faults {
 public:
  template <class... Args>
  void add(fmt::format_string<Args...> text, Args&&... args) {
    texts_.push_back(fmt::format(text, std::forward<Args>(args)...));
    all_unsupported_ = false;
  }
  // Valid, but not implemented; `fix` is the way out.
  void add_unsupported(std::string text, std::string fix);

  bool empty() const { return texts_.empty(); }
  // Ok where empty; otherwise the first few in one line and the count of the rest. kUnsupported if
  // nothing else is wrong, kInvalidArgument otherwise.
  Status status() const;

 private:
  std::vector<std::string> texts_;
  std::string fix_;
  bool all_unsupported_ = true;
};

// A field by the name that is written, and other names under which files have it.
struct Field {
  std::string_view key;
  std::array<std::string_view, 2> aliases = {};
  bool in_meta = false;  // GPTQModel keeps it in "meta"
};

// A value as messages show it: one line of JSON, shortened.
std::string shown(const Json& value);

// "a, b, c"
std::string joined(std::span<const std::string_view> names);

// The object with its keys in lower case, as GPTQModel reads them. Keys that then coincide are a
// fault; what is not an object is one too (and gives an empty object).
Json with_lower_case_keys(const Json& json, Faults& faults);

// Reads the fields of one object. A field that is missing or null leaves `value` as it is; a wrong
// type is a fault and does the same. Both the object and the faults must outlive the reader.
class FieldReader {
 public:
  FieldReader(const Json& object, Faults& faults) : object_(object), faults_(faults) {}

  // Nothing where missing or null. Two names of a field with different values are a fault.
  const Json* find(const Field& field);

  void read(const Field& field, bool& value);
  void read(const Field& field, double& value);
  void read(const Field& field, std::string& value);
  void read(const Field& field, std::optional<double>& value);
  // An integer in [low, high]; `what` ends the sentence "... but must be".
  void read_integer(const Field& field, int64_t low, int64_t high, std::string_view what, int64_t& value);
  // A list of strings; lists in it are taken apart.
  void read_strings(const Field& field, std::vector<std::string>& value);
  // One token id or several. -1 stands for none, as early LLaMA files have it.
  void read_token_ids(const Field& field, std::vector<int32_t>& value);
  void read_token_id(const Field& field, std::optional<int32_t>& value);
  void read_dtype(const Field& field, std::optional<DType>& value);

 private:
  const Json& object_;
  Faults& faults_;
};

// Sets the field under every name it has in `json`, and in `meta` if it stands there. Adds it under
// its own name where it has none, unless `optional` and the object came from a file: what a file
// leaves out is not made up.
void write_field(Json& json, const Field& field, const Json& value, bool optional = false);

// Whether the object has the field, under any name.
bool has_field(const Json& json, const Field& field);

}  // namespace nibble

#endif  // NIBBLE_CONFIG_FIELDS_H_
