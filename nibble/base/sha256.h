#ifndef NIBBLE_BASE_SHA256_H_
#define NIBBLE_BASE_SHA256_H_

// SHA-256 (FIPS 180-4), to tell data apart; nothing here is secret.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

// Of bytes that come in parts.
class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text))); }
  // 64 lower-case hexadecimal digits; then it begins anew.
  std::string finish();

 private:
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> block_{};  // its first size_ % 64 bytes wait to be mixed in
  uint64_t size_ = 0;
};

std::string sha256(std::span<const std::byte> bytes);
inline std::string sha256(std::string_view text) { return sha256(std::as_bytes(std::span(text))); }

}  // namespace nibble

#endif  // NIBBLE_BASE_SHA256_H_
