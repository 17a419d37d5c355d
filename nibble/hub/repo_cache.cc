#include "nibble/hub/repo_cache.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/cancel.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/hub_cache.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kCacheTag =
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This folder holds models from a hub, which can be fetched again: https://bford.info/cachedir/\n";

bool is_file_of_size(const fs::path& path, uint64_t size) {
  std::error_code error;
  return fs::is_regular_file(path, error) && fs::file_size(path, error) == size && !error;
}

// Somebody who cleans up may have removed the file between open() and flock(): then it is nobody's lock.
bool is_still_there(int fd, const fs::path& path) {
  struct stat opened = {};
  struct stat found = {};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &found) == 0 && opened.st_ino == found.st_ino &&
         opened.st_dev == found.st_dev;
}

}  // namespace

Expected<FileLock> FileLock::acquire(const fs::path& path, const std::atomic<bool>* stop,
                                     const OnWait& on_wait) {
  constexpr std::chrono::milliseconds kPoll{50};
  bool has_said = false;
  while (true) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    if (fd < 0)
      return fail(ErrorCode::kUnavailable, "cannot open: {}", std::strerror(errno)).at(path.string());
    FileLock lock(fd);
    while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return lock;
      if (!std::exchange(has_said, true) && on_wait) on_wait("another download of this file", kPoll);
      NIBBLE_RETURN_IF_ERROR(check_cancelled());
      if (stop != nullptr && *stop) return fail(ErrorCode::kCancelled, "interrupted");
      std::this_thread::sleep_for(kPoll);
    }
    if (is_still_there(fd, path)) return lock;
  }
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

RepoCache::RepoCache(const fs::path& cache, std::string_view repo)
    : cache_(cache),
      folder_(cache / repo_folder_name(repo)),
      locks_(cache / ".locks" / repo_folder_name(repo)) {}

Status RepoCache::create() const {
  for (const fs::path& folder : {folder_ / "blobs", folder_ / "snapshots", folder_ / "refs", locks_}) {
    NIBBLE_RETURN_IF_ERROR(create_folder(folder));
  }
  std::error_code error;
  const fs::path tag = cache_ / "CACHEDIR.TAG";
  return fs::exists(tag, error) ? Status() : write_file(tag, kCacheTag);
}

fs::path RepoCache::blob(std::string_view etag) const { return folder_ / "blobs" / etag; }
fs::path RepoCache::incomplete(std::string_view etag) const {
  return folder_ / "blobs" / fmt::format("{}.incomplete", etag);
}
fs::path RepoCache::lock(std::string_view etag) const { return locks_ / fmt::format("{}.lock", etag); }
fs::path RepoCache::snapshot(std::string_view commit) const { return folder_ / "snapshots" / commit; }

bool RepoCache::has_file(std::string_view commit, const RemoteFile& file) const {
  const fs::path path = snapshot(commit) / file.path;
  std::error_code error;
  if (fs::is_symlink(path, error) && fs::read_symlink(path, error).filename() != file.etag) return false;
  return is_file_of_size(path, file.size);
}

bool RepoCache::has_blob(const RemoteFile& file) const { return is_file_of_size(blob(file.etag), file.size); }

uint64_t RepoCache::partial_bytes(const RemoteFile& file) const {
  std::error_code error;
  const uint64_t size = fs::file_size(incomplete(file.etag), error);
  return error || size > file.size ? 0 : size;
}

Status RepoCache::link(std::string_view commit, const RemoteFile& file) const {
  fs::path target = "../../blobs";
  fs::path parent = snapshot(commit);
  NIBBLE_RETURN_IF_ERROR(create_folder(parent));
  const auto parts = split_at_slashes(file.path);
  for (const std::string_view part : std::span(parts).first(parts.size() - 1)) {
    parent /= part;
    target = ".." / target;
    NIBBLE_RETURN_IF_ERROR(create_folder(parent));
    std::error_code error;
    if (fs::is_symlink(parent, error)) {
      return fail(ErrorCode::kDataLoss, "this is a link, which may lead out of the snapshot")
          .at(parent.string())
          .with_fix("Remove it, and pull again.");
    }
  }
  target /= file.etag;
  const fs::path pointer = parent / parts.back();
  // Another process, and another thread of this one, may be linking the same file.
  static std::atomic<unsigned> number = 0;
  const fs::path temporary = parent / fmt::format(".{}.{}.{}.tmp", file.etag, ::getpid(), number++);
  std::error_code error;
  fs::remove(temporary, error);
  fs::create_symlink(target, temporary, error);
  if (!error) fs::rename(temporary, pointer, error);
  if (!error) return {};
  std::error_code ignored;
  fs::remove(temporary, ignored);
  return fail(ErrorCode::kUnavailable, "cannot link it to its blob: {}", error.message())
      .at(pointer.string());
}

Status RepoCache::write_ref(std::string_view revision, std::string_view commit) const {
  if (revision == commit) return {};
  const fs::path path = folder_ / "refs" / revision;
  if (const auto old = read_text_file(path, /*max_bytes=*/4096); old && *old == commit) return {};
  NIBBLE_RETURN_IF_ERROR(create_folder(path.parent_path()));
  return write_file(path, commit);
}

}  // namespace nibble
