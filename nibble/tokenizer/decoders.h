#ifndef NIBBLE_TOKENIZER_DECODERS_H_
#define NIBBLE_TOKENIZER_DECODERS_H_

#include <functional>
#include <string>
#include <vector>

#include "nibble/base/json.h"

namespace nibble {

// The "decoder" of tokenizer.json: from the spelling of tokens back to text. Immutable.
class TokenDecoder {
 public:
  static Expected<TokenDecoder> parse(const Json& json);  // null: tokens are joined by spaces

  std::string decode(std::vector<std::string> tokens) const;
  // Whether what this token decodes to is only known with the token behind it: a byte of a run.
  bool waits_for_next(std::string_view token) const;

 private:
  std::vector<std::function<void(std::vector<std::string>&)>> steps_;
  bool join_with_spaces_ = false;
  bool byte_fallback_ = false;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_DECODERS_H_
