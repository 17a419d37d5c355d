#ifndef NIBBLE_TOKENIZER_POST_PROCESSORS_H_
#define NIBBLE_TOKENIZER_POST_PROCESSORS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "nibble/base/json.h"

namespace nibble {

// Spaces (or the character that ByteLevel writes for one) at both ends of a token's spelling.
struct OuterSpaces {
  size_t leading = 0;
  size_t trailing = 0;
};
OuterSpaces outer_spaces(std::string_view token);

// The tokens of a text. `offsets` and `spaces` stay empty unless offsets are wanted.
struct TokenList {
  bool with_offsets = false;
  std::vector<int32_t> ids;
  std::vector<std::pair<size_t, size_t>> offsets;  // code points of the input
  std::vector<OuterSpaces> spaces;
};

// The "post_processor" of tokenizer.json: BOS, EOS, and how far offsets reach. Immutable.
class PostProcessor {
 public:
  static Expected<PostProcessor> parse(const Json& json);  // null: changes nothing
  // [bos] text [eos], for either that is given: what Llama's old configuration asks for.
  static PostProcessor bos_eos(std::vector<int32_t> bos, std::vector<int32_t> eos);

  void apply(TokenList& tokens, bool add_special_tokens) const;

 private:
  std::vector<std::function<void(TokenList&, bool)>> steps_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_POST_PROCESSORS_H_
