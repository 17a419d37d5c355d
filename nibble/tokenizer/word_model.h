#ifndef NIBBLE_TOKENIZER_WORD_MODEL_H_
#define NIBBLE_TOKENIZER_WORD_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/tokenizer/vocabulary.h"

namespace nibble {

// A token of a word that the model was given, and which bytes of the word it stands for. Tokens of one
// unknown character that is written as bytes may all stand for the whole of it.
struct ModelToken {
  int32_t id = 0;
  size_t begin = 0;
  size_t end = 0;
};

// The "model" of tokenizer.json: words to ids. Immutable; any thread.
class WordModel {
 public:
  static Expected<std::unique_ptr<WordModel>> parse(const Json& json);
  virtual ~WordModel() = default;

  virtual const Vocabulary& vocabulary() const = 0;
  // Appends the tokens of `word` (valid UTF-8). An error only where the word cannot be written and the
  // model has no token for the unknown.
  virtual Status tokenize(std::string_view word, std::vector<ModelToken>& tokens) const = 0;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_WORD_MODEL_H_
