#ifndef NIBBLE_TOKENIZER_BPE_H_
#define NIBBLE_TOKENIZER_BPE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/tokenizer/vocabulary.h"

namespace nibble {

// A token of a word that the model was given: its bytes end at `end`, and begin where those of the
// token before it end.
struct ModelToken {
  int32_t id = 0;
  size_t end = 0;
};

// Byte-pair encoding: characters are joined by the merge of the lowest rank until none applies.
// Immutable; any thread.
class BpeModel {
 public:
  // The "model" of tokenizer.json.
  static Expected<BpeModel> parse(const Json& json);
  BpeModel(BpeModel&&) noexcept;
  BpeModel& operator=(BpeModel&&) noexcept;
  ~BpeModel();

  const Vocabulary& vocabulary() const;
  // Appends the tokens of `word` (valid UTF-8); O(n log n).
  void tokenize(std::string_view word, std::vector<ModelToken>& tokens) const;

 private:
  struct Tables;
  explicit BpeModel(std::unique_ptr<Tables> tables);
  std::unique_ptr<Tables> tables_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_BPE_H_
