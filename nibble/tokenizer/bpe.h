#ifndef NIBBLE_TOKENIZER_BPE_H_
#define NIBBLE_TOKENIZER_BPE_H_

#include <memory>
#include <string_view>
#include <vector>

#include "nibble/tokenizer/word_model.h"

namespace nibble {

// Byte-pair encoding: characters are joined by the merge of the lowest rank until none applies.
// Immutable; any thread.
class BpeModel final : public WordModel {
 public:
  // The "model" of tokenizer.json.
  static Expected<BpeModel> parse(const Json& json);
  BpeModel(BpeModel&&) noexcept;
  BpeModel& operator=(BpeModel&&) noexcept;
  ~BpeModel() override;

  const Vocabulary& vocabulary() const override;
  // O(n log n). Never an error: without unk_token an unknown character is lost, as in the original.
  Status tokenize(std::string_view word, std::vector<ModelToken>& tokens) const override;

 private:
  struct Tables;
  explicit BpeModel(std::unique_ptr<Tables> tables);
  std::unique_ptr<Tables> tables_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_BPE_H_
