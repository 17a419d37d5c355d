#ifndef NIBBLE_BASE_SHA256_H_
#define NIBBLE_BASE_SHA256_H_

// SHA-256 (FIPS 180-4), to tell data apart; nothing here is secret.

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

// Of bytes that come in parts.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text))); }
  // 64 lower-case hexadecimal digits; then it begins anew.
  std::string finish();

 private:
  struct Context;  // OpenSSL's
  std::unique_ptr<Context> context_;
};

std::string sha256(std::span<const std::byte> bytes);
inline std::string sha256(std::string_view text) { return sha256(std::as_bytes(std::span(text))); }

}  // namespace nibble

#endif  // NIBBLE_BASE_SHA256_H_
