#ifndef NIBBLE_TOKENIZER_WORD_LEVEL_H_
#define NIBBLE_TOKENIZER_WORD_LEVEL_H_

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "nibble/tokenizer/word_model.h"

namespace nibble {

// A word is a token, or it is unknown.
class WordLevelModel final : public WordModel {
 public:
  static Expected<WordLevelModel> parse(const Json& json);

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  Status tokenize(std::string_view word, std::vector<ModelToken>& tokens) const override;

 private:
  explicit WordLevelModel(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}

  Vocabulary vocabulary_;
  std::optional<int32_t> unk_id_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_WORD_LEVEL_H_
