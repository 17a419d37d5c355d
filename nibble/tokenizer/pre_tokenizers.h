#ifndef NIBBLE_TOKENIZER_PRE_TOKENIZERS_H_
#define NIBBLE_TOKENIZER_PRE_TOKENIZERS_H_

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/tokenizer/aligned_text.h"

namespace nibble {

// A part of the input on its way to the model: an added token that was found already, or text.
struct Piece {
  static constexpr int32_t kText = -1;

  Piece(AlignedText piece_text, int32_t id) : text(std::move(piece_text)), added_id(id) {}

  AlignedText text;
  int32_t added_id;
};

// The "pre_tokenizer" of tokenizer.json: cuts the text into the words that the model sees.
// Immutable.
class PreTokenizer {
 public:
  static Expected<PreTokenizer> parse(const Json& json);  // null: changes nothing

  Status apply(std::vector<Piece>& pieces) const;
  // Whether a step asks where a piece begins in the input.
  bool needs_input_ranges() const { return needs_input_ranges_; }

 private:
  std::vector<std::function<Status(std::vector<Piece>&)>> steps_;
  bool needs_input_ranges_ = false;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_PRE_TOKENIZERS_H_
