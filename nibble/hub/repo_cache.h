#ifndef NIBBLE_HUB_REPO_CACHE_H_
#define NIBBLE_HUB_REPO_CACHE_H_

// One model's part of the cache (layout: checkpoint/hub_cache.h), for writing.

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <utility>

#include "nibble/base/error.h"
#include "nibble/hub/remote_model.h"
#include "nibble/hub/retry.h"

namespace nibble {

// A lock that the system takes back when the process ends, however it ends. huggingface_hub takes the same.
class FileLock {
 public:
  // Waits while somebody else holds it; `on_wait` is said once. On a file system without locks it is no
  // lock, which costs a second download but no correctness: blobs are checked and renamed.
  static Expected<FileLock> acquire(const std::filesystem::path& path, const std::atomic<bool>* stop,
                                    const OnWait& on_wait);
  FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

class RepoCache {
 public:
  RepoCache(const std::filesystem::path& cache, std::string_view repo);

  // The folders, and the tag by which backup programs know a cache.
  Status create() const;

  std::filesystem::path blob(std::string_view etag) const;
  std::filesystem::path incomplete(std::string_view etag) const;
  std::filesystem::path lock(std::string_view etag) const;
  std::filesystem::path snapshot(std::string_view commit) const;

  // The snapshot has the file: a link to the right blob, or the file itself, with the right size.
  bool has_file(std::string_view commit, const RemoteFile& file) const;
  bool has_blob(const RemoteFile& file) const;
  uint64_t partial_bytes(const RemoteFile& file) const;  // that an earlier download left

  // snapshots/COMMIT/PATH -> the blob, replacing what is there at once.
  Status link(std::string_view commit, const RemoteFile& file) const;
  // refs/REVISION, unless the revision is the commit itself.
  Status write_ref(std::string_view revision, std::string_view commit) const;

 private:
  std::filesystem::path cache_, folder_, locks_;
};

}  // namespace nibble

#endif  // NIBBLE_HUB_REPO_CACHE_H_
