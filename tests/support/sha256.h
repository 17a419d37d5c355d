#ifndef NIBBLE_TESTS_SUPPORT_SHA256_H_
#define NIBBLE_TESTS_SUPPORT_SHA256_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace nibble::test {

// 64 lower-case hexadecimal digits. FIPS 180-4.
std::string sha256(std::span<const std::byte> bytes);
inline std::string sha256(std::string_view text) { return sha256(std::as_bytes(std::span(text))); }

}  // namespace nibble::test

#endif  // NIBBLE_TESTS_SUPPORT_SHA256_H_
