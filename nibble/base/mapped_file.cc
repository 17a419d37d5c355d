#include "nibble/base/mapped_file.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nibble/base/shrunk_file.h"

namespace nibble {
namespace {

// Closes the descriptor at the end of the scope.
struct FileDescriptor {
  int fd;
  ~FileDescriptor() {
    if (fd >= 0) ::close(fd);
  }
};

Failure system_failure(const std::filesystem::path& path, int error) {
  const ErrorCode code = error == ENOENT || error == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kUnavailable;
  return fail(code, "{}", std::strerror(error)).at(path.string());
}

// Opens a regular file and learns its size.
Expected<std::pair<int, size_t>> open_regular(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return system_failure(path, errno);
  struct stat status = {};
  if (::fstat(fd, &status) != 0) {
    const int error = errno;
    ::close(fd);
    return system_failure(path, error);
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(fd);
    return fail(ErrorCode::kInvalidArgument, "not a regular file").at(path.string());
  }
  return std::pair(fd, static_cast<size_t>(status.st_size));
}

}  // namespace

MappedFile::MappedFile(std::filesystem::path path, int fd, const std::byte* data, size_t size)
    : path_(std::move(path)), fd_(fd), data_(data), size_(size) {
  if (size_ > 0) add_mapping(bytes(), path_.c_str());
}

MappedFile::~MappedFile() {
  if (size_ > 0) {
    remove_mapping(bytes());
    ::munmap(const_cast<std::byte*>(data_), size_);
  }
  ::close(fd_);
}

Expected<std::shared_ptr<const MappedFile>> MappedFile::open(const std::filesystem::path& path) {
  NIBBLE_TRY(const auto opened, open_regular(path));
  const auto [fd, size] = opened;
  void* const data = size == 0 ? nullptr : ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) {
    const int error = errno;
    ::close(fd);
    return system_failure(path, error);
  }
  return std::shared_ptr<const MappedFile>(
      new MappedFile(path, fd, static_cast<const std::byte*>(data), size));
}

Status MappedFile::check_size() const {
  struct stat status = {};
  if (::fstat(fd_, &status) != 0) return system_failure(path_, errno);
  const auto size = static_cast<size_t>(status.st_size);
  if (size >= size_) return {};
  return fail(ErrorCode::kDataLoss, "the file had {} bytes when it was opened, and has {} now", size_, size)
      .at(path_.string())
      .with_fix("Another program has changed it: fetch the file again, and leave it alone while it is used.");
}

void drop_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

Expected<std::string> read_text_file(const std::filesystem::path& path, size_t max_bytes) {
  NIBBLE_TRY(const auto opened, open_regular(path));
  const FileDescriptor file{opened.first};
  if (opened.second > max_bytes) {
    return fail(ErrorCode::kInvalidArgument, "{} bytes, but at most {} are read here", opened.second,
                max_bytes)
        .at(path.string());
  }
  std::string text(opened.second, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::read(file.fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_failure(path, errno);
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  text.resize(done);
  return text;
}

}  // namespace nibble
