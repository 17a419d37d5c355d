#include "nibble/base/atomic_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <stdlib.h>  // mkostemp
#include <sys/stat.h>
#include <unistd.h>

namespace nibble {
namespace {

constexpr size_t kMostPerCall = size_t{1} << 30;  // Linux writes at most 2 GiB per call

// Asking for it means setting it: once, before there are threads.
const mode_t kUmask = [] {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return mask;
}();

// As of any new file; a file that is replaced keeps who may read it.
mode_t mode_for(const std::filesystem::path& path) {
  struct stat old = {};
  constexpr mode_t kPermissions = 07777;
  return ::stat(path.c_str(), &old) == 0 ? old.st_mode & kPermissions : 0666 & ~kUmask;
}

off_t to_offset(size_t bytes) { return static_cast<off_t>(bytes); }

Failure write_failure(const std::filesystem::path& path, int error) {
  Failure failure = fail(ErrorCode::kUnavailable, "{}", std::strerror(error)).at(path.string());
  if (error == ENOSPC || error == EDQUOT) {
    return std::move(failure).with_fix(
        "Free disk space or write to another disk; the old file is unchanged.");
  }
  return failure;
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path, std::filesystem::path temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)) {}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

Expected<AtomicFile> AtomicFile::create(const std::filesystem::path& path) {
  // In the same folder, because a rename is atomic only within one file system.
  std::string name = path.string() + ".tmp.XXXXXX";
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) return write_failure(path, errno);
  ::fchmod(fd, mode_for(path));
  return AtomicFile(path, name, fd);
}

Status AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), std::min(bytes.size(), kMostPerCall));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return write_failure(path_, errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

Status AtomicFile::write_at(size_t offset, std::span<const std::byte> bytes) {
  const size_t begin = offset;
  const size_t size = bytes.size();
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), std::min(bytes.size(), kMostPerCall), to_offset(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return write_failure(path_, errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<size_t>(n);
  }
  // The disk may begin now, so that commit() has less to wait for. Only a hint: errors show there.
  constexpr size_t kWorthAHint = size_t{1} << 20;
  if (size >= kWorthAHint) {
    ::sync_file_range(fd_, to_offset(begin), to_offset(size), SYNC_FILE_RANGE_WRITE);
  }
  return {};
}

Status AtomicFile::commit() {
  if (::fsync(fd_) != 0) return write_failure(path_, errno);
  if (::close(std::exchange(fd_, -1)) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    return write_failure(path_, error);
  }
  // The new name itself must survive a power cut too.
  const std::filesystem::path parent = path_.has_parent_path() ? path_.parent_path() : ".";
  const int folder = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    ::fsync(folder);
    ::close(folder);
  }
  return {};
}

Status write_file(const std::filesystem::path& path, std::string_view text) {
  NIBBLE_TRY(AtomicFile file, AtomicFile::create(path));
  NIBBLE_RETURN_IF_ERROR(file.write(text));
  return file.commit();
}

Status remove_file(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove(path, error);
  if (!error) return {};
  return fail(ErrorCode::kUnavailable, "cannot remove it: {}", error.message()).at(path.string());
}

Status create_folder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return fail(ErrorCode::kUnavailable, "{}", error.message()).at(path.string());
  return {};
}

}  // namespace nibble
