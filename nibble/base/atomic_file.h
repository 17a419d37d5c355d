#ifndef NIBBLE_BASE_ATOMIC_FILE_H_
#define NIBBLE_BASE_ATOMIC_FILE_H_

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

#include "nibble/base/error.h"

namespace nibble {

// Writes a file so that readers see the old one or the whole new one, never a part: bytes go to a
// temporary sibling, which is synced and renamed by commit(). Without commit() (an error, a full
// disk, Ctrl-C) the temporary file is removed and the old file stays. One thread at a time.
class AtomicFile {
 public:
  static Expected<AtomicFile> create(const std::filesystem::path& path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  Status write(std::span<const std::byte> bytes);
  Status write(std::string_view text) { return write(std::as_bytes(std::span(text))); }
  // Leaves the place where write() goes on. A gap that is never filled reads as zeros.
  Status write_at(size_t offset, std::span<const std::byte> bytes);
  Status commit();

 private:
  AtomicFile(std::filesystem::path path, std::filesystem::path temporary, int fd);

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_;
};

Status write_file(const std::filesystem::path& path, std::string_view text);

// A file that is not there is removed already.
Status remove_file(const std::filesystem::path& path);

// Creates the folder and its parents.
Status create_folder(const std::filesystem::path& path);

}  // namespace nibble

#endif  // NIBBLE_BASE_ATOMIC_FILE_H_
