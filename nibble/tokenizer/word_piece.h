#ifndef NIBBLE_TOKENIZER_WORD_PIECE_H_
#define NIBBLE_TOKENIZER_WORD_PIECE_H_

#include <string_view>
#include <vector>

#include "nibble/tokenizer/prefix_trie.h"
#include "nibble/tokenizer/word_model.h"

namespace nibble {

// BERT's model: at each place of a word the longest token, where those inside of a word are spelt with
// "##" in front. A word with a place that no token fits is unknown as a whole.
class WordPieceModel final : public WordModel {
 public:
  static Expected<WordPieceModel> parse(const Json& json);

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  Status tokenize(std::string_view word, std::vector<ModelToken>& tokens) const override;

 private:
  WordPieceModel(Vocabulary vocabulary, PrefixTrie trie)
      : vocabulary_(std::move(vocabulary)), trie_(std::move(trie)) {}

  Vocabulary vocabulary_;
  PrefixTrie trie_;
  uint32_t inside_ = PrefixTrie::kRoot;  // the node where tokens inside of a word begin
  int32_t unk_id_ = 0;
  size_t max_chars_ = 0;  // longer words are unknown
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_WORD_PIECE_H_
