#ifndef NIBBLE_CONFIG_CONFIG_TEST_FILES_H_
#define NIBBLE_CONFIG_CONFIG_TEST_FILES_H_

// For the tests of this folder: JSON files of tests/data.

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "nibble/base/json.h"

namespace nibble {

inline Expected<Json> read_test_json(const std::string& name) {
  std::ifstream file(std::filesystem::path(NIBBLE_TEST_DATA) / name, std::ios::binary);
  if (!file) return fail(ErrorCode::kNotFound, "no such file").at(name);
  std::ostringstream text;
  text << file.rdbuf();
  return at(name, parse_json(text.str()));
}

inline bool has_test_file(const std::string& name) {
  return std::filesystem::exists(std::filesystem::path(NIBBLE_TEST_DATA) / name);
}

inline Json must_parse(std::string_view text) { return parse_json(text).value(); }

}  // namespace nibble

#endif  // NIBBLE_CONFIG_CONFIG_TEST_FILES_H_
