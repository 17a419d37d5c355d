#include "nibble/hub/fetch_blob.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "nibble/base/cancel.h"
#include "nibble/base/log.h"
#include "nibble/hub/blob_digest.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// blobs/ETAG.incomplete, with the hash of what is in it so far.
class PartialBlob {
 public:
  static Expected<PartialBlob> open(const fs::path& path, const RemoteFile& file) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
      return fail(ErrorCode::kUnavailable, "cannot open: {}", std::strerror(errno)).at(path.string());
    PartialBlob blob(path, file, fd);
    NIBBLE_RETURN_IF_ERROR(blob.read_what_is_there());
    return blob;
  }
  PartialBlob(PartialBlob&& other) noexcept
      : path_(std::move(other.path_)),
        file_(other.file_),
        fd_(std::exchange(other.fd_, -1)),
        size_(other.size_),
        digest_(std::move(other.digest_)) {}
  PartialBlob& operator=(PartialBlob&&) = delete;
  ~PartialBlob() {
    if (fd_ >= 0) ::close(fd_);
  }

  uint64_t size() const { return size_; }

  Status append(std::span<const std::byte> bytes) {
    digest_.update(bytes);
    while (!bytes.empty()) {
      const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return failure("cannot write");
      bytes = bytes.subspan(static_cast<size_t>(count));
      size_ += static_cast<uint64_t>(count);
    }
    return {};
  }

  Status restart() {
    size_ = 0;
    digest_ = BlobDigest(file_->etag, file_->size);
    if (::ftruncate(fd_, 0) != 0 || ::lseek(fd_, 0, SEEK_SET) != 0) return failure("cannot empty it");
    return {};
  }

  std::string finish_digest() { return digest_.finish(); }

  Status rename_to(const fs::path& blob) {
    if (::fdatasync(fd_) != 0) return failure("cannot write");
    std::error_code error;
    fs::rename(path_, blob, error);
    if (!error) return {};
    return fail(ErrorCode::kUnavailable, "cannot rename: {}", error.message()).at(path_.string());
  }

 private:
  PartialBlob(fs::path path, const RemoteFile& file, int fd)
      : path_(std::move(path)), file_(&file), fd_(fd), digest_(file.etag, file.size) {}

  Failure failure(std::string_view what) const {
    const bool is_full = errno == ENOSPC || errno == EDQUOT;
    Failure failure = fail(ErrorCode::kUnavailable, "{}: {}", what, std::strerror(errno)).at(path_.string());
    return is_full ? std::move(failure).with_fix("Make room, and run the command again: it goes on there.")
                   : failure;
  }

  Status read_what_is_there() {
    std::array<std::byte, 1 << 16> chunk;
    while (true) {
      NIBBLE_RETURN_IF_ERROR(check_cancelled());
      const ssize_t count = ::read(fd_, chunk.data(), chunk.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return failure("cannot read");
      if (count == 0) break;
      digest_.update(std::span(chunk).first(static_cast<size_t>(count)));
      size_ += static_cast<uint64_t>(count);
    }
    return size_ > file_->size ? restart() : Status();
  }

  fs::path path_;
  const RemoteFile* file_;
  int fd_;
  uint64_t size_ = 0;
  BlobDigest digest_;
};

// Where the part begins, from "bytes 100-199/200".
std::optional<uint64_t> range_begin(const HttpResponse& response) {
  const std::string text = response.header("content-range");
  constexpr std::string_view kUnit = "bytes ";
  if (!text.starts_with(kUnit)) return std::nullopt;
  uint64_t begin = 0;
  const char* const first = text.data() + kUnit.size();
  const auto [end, error] = std::from_chars(first, text.data() + text.size(), begin);
  if (error != std::errc() || end == first) return std::nullopt;
  return begin;
}

// One request for what is missing. `most`: bytes of the file that were there at any time. What comes for the
// second time is no progress, or a server that knows no ranges and cuts would be asked for ever.
Expected<Attempt> fetch_rest(HubClient& client, const std::string& url, const RemoteFile& file,
                             PartialBlob& blob, uint64_t& received, uint64_t& most,
                             const FetchEvents& events) {
  bool is_first = true;
  bool is_other_part = false;
  const BodySink sink = [&](const HttpResponse& head, std::span<const std::byte> piece) -> Status {
    if (std::exchange(is_first, false)) {
      // 200 although a part was asked for: the server knows no ranges, and everything comes again.
      if (head.status == 200 && blob.size() > 0) NIBBLE_RETURN_IF_ERROR(blob.restart());
      is_other_part = head.status == 206 && range_begin(head) != blob.size();
    }
    if (is_other_part) return fail(ErrorCode::kDataLoss, "the server sends another part than was asked for");
    if (piece.size() > file.size - blob.size()) {
      return fail(ErrorCode::kDataLoss, "the server sends more than the {} bytes that the hub lists",
                  file.size);
    }
    NIBBLE_RETURN_IF_ERROR(blob.append(piece));
    received += piece.size();
    if (events.on_bytes) events.on_bytes(blob.size());
    return {};
  };
  const std::string range = blob.size() > 0 ? fmt::format("{}-", blob.size()) : "";
  NIBBLE_TRY(const HttpResponse response, client.get(url, range, sink));
  if (response.status == 416) {
    NIBBLE_RETURN_IF_ERROR(blob.restart());
    return Attempt{.trouble = "the server cannot go on there"};
  }
  NIBBLE_TRY(Attempt attempt, client.judge(response, file.path));
  attempt.made_progress = blob.size() > most;
  most = std::max(most, blob.size());
  if (attempt.trouble.empty() && blob.size() < file.size) {
    attempt.trouble = fmt::format("the server sent {} of {} bytes", blob.size(), file.size);
  }
  return attempt;
}

Expected<uint64_t> fetch_under_lock(HubClient& client, std::string_view commit, const RemoteFile& file,
                                    const RepoCache& cache, const FetchEvents& events) {
  NIBBLE_TRY(PartialBlob blob, PartialBlob::open(cache.incomplete(file.etag), file));
  uint64_t received = 0;
  uint64_t most = blob.size();
  const std::string url = client.file_url(commit, file.path);
  bool is_resumed = blob.size() > 0;
  while (true) {
    if (events.on_bytes) events.on_bytes(blob.size());
    if (blob.size() < file.size) {
      NIBBLE_RETURN_IF_ERROR(with_retries(client.settings().timing, events.on_wait, client.stop(), [&] {
        return fetch_rest(client, url, file, blob, received, most, events);
      }));
    }
    const std::string digest = blob.finish_digest();
    if (digest == file.etag) break;
    NIBBLE_RETURN_IF_ERROR(blob.restart());
    if (!is_resumed) {
      std::error_code ignored;
      fs::remove(cache.incomplete(file.etag), ignored);
      return fail(ErrorCode::kDataLoss, "the bytes have the hash {}, but the hub lists {}", digest, file.etag)
          .with_fix(
              "Something changed them on the way; nothing of it was kept. Try again, or another network.");
    }
    // What was there may be what is wrong: once more, from the beginning.
    log_verbose("{}: the hash is wrong; starting over", file.path);
    is_resumed = false;
    most = 0;
  }
  NIBBLE_RETURN_IF_ERROR(blob.rename_to(cache.blob(file.etag)));
  return received;
}

}  // namespace

Expected<uint64_t> fetch_blob(HubClient& client, std::string_view commit, const RemoteFile& file,
                              const RepoCache& cache, const FetchEvents& events) {
  NIBBLE_TRY(const FileLock lock, FileLock::acquire(cache.lock(file.etag), client.stop(), events.on_wait));
  if (cache.has_blob(file)) return 0;
  return at(file.path, fetch_under_lock(client, commit, file, cache, events));
}

}  // namespace nibble
