#include "nibble/hub/blob_digest.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

std::string digest_of(std::string_view etag, std::string_view text) {
  BlobDigest digest(etag, text.size());
  digest.update(std::as_bytes(std::span(text.substr(0, text.size() / 2))));
  digest.update(std::as_bytes(std::span(text.substr(text.size() / 2))));
  return digest.finish();
}

// What `git hash-object` and `sha256sum` say.
TEST(BlobDigest, IsGitsHashOrSha256) {
  const std::string small(40, '0');
  const std::string large(64, '0');
  EXPECT_EQ(digest_of(small, ""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
  EXPECT_EQ(digest_of(small, "hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
  EXPECT_EQ(digest_of(large, "hello\n"), "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
}

TEST(BlobDigest, OnlyLowerCaseHexadecimalIsAHash) {
  EXPECT_TRUE(is_sha1(std::string(40, 'a')));
  EXPECT_TRUE(is_sha256(std::string(64, '9')));
  EXPECT_FALSE(is_sha1(std::string(39, 'a')));
  EXPECT_FALSE(is_sha1(std::string(40, 'A')));
  EXPECT_FALSE(is_sha256("../" + std::string(61, 'a')));
}

}  // namespace
}  // namespace nibble
