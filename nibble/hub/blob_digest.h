#ifndef NIBBLE_HUB_BLOB_DIGEST_H_
#define NIBBLE_HUB_BLOB_DIGEST_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

// 40 hexadecimal digits: a commit, or git's SHA-1 of a file.
bool is_sha1(std::string_view text);
// 64: the SHA-256 of a file in LFS.
bool is_sha256(std::string_view text);

// The hash that a file's etag is: SHA-256 of its bytes if the etag has 64 digits, else git's SHA-1 of
// "blob SIZE\0" and its bytes. OpenSSL's, because gigabytes go through it.
class BlobDigest {
 public:
  BlobDigest(std::string_view etag, uint64_t size);
  ~BlobDigest();
  BlobDigest(BlobDigest&&) noexcept;
  BlobDigest& operator=(BlobDigest&&) noexcept;

  void update(std::span<const std::byte> bytes);
  std::string finish();  // lower-case hexadecimal digits; once

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace nibble

#endif  // NIBBLE_HUB_BLOB_DIGEST_H_
