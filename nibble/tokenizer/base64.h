#ifndef NIBBLE_TOKENIZER_BASE64_H_
#define NIBBLE_TOKENIZER_BASE64_H_

#include <optional>
#include <string>
#include <string_view>

namespace nibble {

std::string encode_base64(std::string_view bytes);
// Nothing if a character is none of base64's; the padding may be missing.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_BASE64_H_
