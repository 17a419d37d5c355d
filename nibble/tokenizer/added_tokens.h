#ifndef NIBBLE_TOKENIZER_ADDED_TOKENS_H_
#define NIBBLE_TOKENIZER_ADDED_TOKENS_H_

// Tokens that are found in the text before the model sees it: <|im_end|>, <tool_call>.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/tokenizer/chat_template.h"
#include "nibble/tokenizer/normalizers.h"
#include "nibble/tokenizer/pre_tokenizers.h"
#include "nibble/tokenizer/vocabulary.h"

namespace nibble {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // only between non-word characters
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and behind it
  bool normalized = false;   // looked for in the normalized text
  bool special = false;
  // What decoding writes, and what is looked for: the content, normalized if it is to be.
  std::string spelling;
};

// Longest match among many strings. Immutable once built.
class TokenTrie {
 public:
  TokenTrie();
  void add(std::string_view text, size_t value);  // the first of two equal texts stays
  bool empty() const { return size_ == 0; }
  // The longest text that begins at `pos`, as its value and length.
  struct Match {
    size_t value = 0;
    size_t size = 0;
  };
  std::optional<Match> longest(std::string_view text, size_t pos) const;

 private:
  static constexpr uint32_t kNoNode = 0;
  uint32_t child(uint32_t node, char byte) const;

  std::vector<uint32_t> roots_;                      // by first byte
  std::unordered_map<uint64_t, uint32_t> children_;  // node << 8 | byte
  std::vector<std::optional<size_t>> values_;        // by node
  size_t size_ = 0;
};

class AddedVocabulary {
 public:
  // added_tokens: the list of tokenizer.json, or null.
  static Expected<AddedVocabulary> parse(const Json& added_tokens, const Vocabulary& vocabulary,
                                         const Normalizer& normalizer);

  // Appends the input, cut at added tokens and normalized between them. `literal`: parts in which
  // special tokens are text.
  Status extract(AlignedText input, const Normalizer& normalizer, std::span<const TextRange> literal,
                 std::vector<Piece>& pieces) const;

  const AddedToken* find(int32_t id) const;
  const AddedToken* find(std::string_view content) const;
  // As decoding asks: by the spelling of a token, whoever owns it.
  bool is_special(std::string_view spelling) const { return special_.count(std::string(spelling)) > 0; }
  // Whether extract() needs to know where normalized text came from if there are literal parts.
  bool has_normalized_special() const { return has_normalized_special_; }
  size_t id_limit() const { return id_limit_; }

 private:
  Status cut(const AlignedText& text, const TokenTrie& trie, std::span<const TextRange> literal,
             std::vector<Piece>& pieces) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;  // index in tokens_
  std::unordered_map<std::string, size_t> by_content_;
  std::unordered_set<std::string> special_;
  TokenTrie plain_;
  TokenTrie normalized_;
  bool has_normalized_special_ = false;
  size_t id_limit_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_ADDED_TOKENS_H_
