#ifndef NIBBLE_BASE_TEMPORARY_FOLDER_H_
#define NIBBLE_BASE_TEMPORARY_FOLDER_H_

#include <filesystem>

#include "nibble/base/error.h"

namespace nibble {

// A new, empty folder under TMPDIR (or /tmp) that is removed with all that is in it.
class TemporaryFolder {
 public:
  static Expected<TemporaryFolder> create();
  TemporaryFolder(TemporaryFolder&& other) noexcept;
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder();

  const std::filesystem::path& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::filesystem::path path) : path_(std::move(path)) {}

  std::filesystem::path path_;
};

}  // namespace nibble

#endif  // NIBBLE_BASE_TEMPORARY_FOLDER_H_
