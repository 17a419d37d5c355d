#ifndef NIBBLE_BASE_MAPPED_FILE_H_
#define NIBBLE_BASE_MAPPED_FILE_H_

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "nibble/base/error.h"

namespace nibble {

// A file mapped read-only. Shared by every tensor that lies in it. Immutable.
// Nibble itself only ever replaces files (atomic_file.h); for a file that another process shortens while it
// is mapped see shrunk_file.h.
class MappedFile {
 public:
  static Expected<std::shared_ptr<const MappedFile>> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

  // kDataLoss once the file is shorter than it was when it was mapped: reading its last bytes would be fatal.
  Status check_size() const;

 private:
  MappedFile(std::filesystem::path path, int fd, const std::byte* data, size_t size);

  const std::filesystem::path path_;
  const int fd_;
  const std::byte* const data_;
  const size_t size_;
};

// Tells the system that the pages wholly inside `bytes` (of a MappedFile) are not needed any more,
// so that they leave this process's memory. They come back from the file when read again.
void drop_pages(std::span<const std::byte> bytes);

// A whole text file, at most max_bytes long.
Expected<std::string> read_text_file(const std::filesystem::path& path, size_t max_bytes = size_t{1} << 30);

}  // namespace nibble

#endif  // NIBBLE_BASE_MAPPED_FILE_H_
