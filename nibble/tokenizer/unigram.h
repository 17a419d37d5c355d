#ifndef NIBBLE_TOKENIZER_UNIGRAM_H_
#define NIBBLE_TOKENIZER_UNIGRAM_H_

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "nibble/tokenizer/prefix_trie.h"
#include "nibble/tokenizer/word_model.h"

namespace nibble {

// SentencePiece's Unigram: of all ways to cut a word into tokens, the one whose scores (log
// probabilities) have the largest sum. T5, XLM-R, and a few decoders.
class UnigramModel final : public WordModel {
 public:
  // "vocab": [["token", score], ...]; the place in the list is the id.
  static Expected<UnigramModel> parse(const Json& json);

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  // O(n) times the length of the longest token.
  Status tokenize(std::string_view word, std::vector<ModelToken>& tokens) const override;

 private:
  UnigramModel(Vocabulary vocabulary, std::vector<double> scores, PrefixTrie trie)
      : vocabulary_(std::move(vocabulary)), scores_(std::move(scores)), trie_(std::move(trie)) {}

  Status add_piece(std::string_view word, size_t begin, size_t end, std::vector<ModelToken>& tokens) const;

  Vocabulary vocabulary_;
  std::vector<double> scores_;  // by id
  PrefixTrie trie_;
  std::optional<int32_t> unk_id_;
  double unk_score_ = 0;
  bool byte_fallback_ = false;
  std::array<std::optional<int32_t>, 256> byte_tokens_;  // <0x00> to <0xFF>
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_UNIGRAM_H_
