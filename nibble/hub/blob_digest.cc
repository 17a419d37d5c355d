#include "nibble/hub/blob_digest.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <openssl/evp.h>

#include "nibble/base/check.h"

namespace nibble {
namespace {

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace

bool is_sha1(std::string_view text) { return is_hex(text, 40); }
bool is_sha256(std::string_view text) { return is_hex(text, 64); }

struct BlobDigest::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

BlobDigest::BlobDigest(std::string_view etag, uint64_t size) : context_(std::make_unique<Context>()) {
  const bool is_large = is_sha256(etag);
  NIBBLE_CHECK(EVP_DigestInit_ex(context_->evp, is_large ? EVP_sha256() : EVP_sha1(), nullptr) == 1);
  if (is_large) return;
  const std::string header = fmt::format("blob {}", size);
  update(std::as_bytes(std::span(header.c_str(), header.size() + 1)));
}

BlobDigest::~BlobDigest() = default;
BlobDigest::BlobDigest(BlobDigest&&) noexcept = default;
BlobDigest& BlobDigest::operator=(BlobDigest&&) noexcept = default;

void BlobDigest::update(std::span<const std::byte> bytes) {
  NIBBLE_CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
}

std::string BlobDigest::finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  NIBBLE_CHECK(EVP_DigestFinal_ex(context_->evp, digest.data(), &size) == 1);
  std::string hex;
  for (size_t i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

}  // namespace nibble
