#ifndef NIBBLE_CHECKPOINT_TEST_FOLDER_H_
#define NIBBLE_CHECKPOINT_TEST_FOLDER_H_

// For tests: an empty folder, to be filled with files, that is removed at the end of the scope.

#include <filesystem>
#include <string_view>

#include "nibble/base/atomic_file.h"
#include "nibble/base/check.h"
#include "tests/support/fixtures.h"

namespace nibble {

class TestFolder : public test::TemporaryFolder {
 public:
  std::filesystem::path operator/(std::string_view name) const { return path() / name; }

  // Writes a file, and the folders above it.
  std::filesystem::path add(std::string_view name, std::string_view content) const {
    std::filesystem::path file = path() / name;
    NIBBLE_CHECK(create_folder(file.parent_path()).has_value());
    NIBBLE_CHECK(write_file(file, content).has_value());
    return file;
  }
};

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_TEST_FOLDER_H_
