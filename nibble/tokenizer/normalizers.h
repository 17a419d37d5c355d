#ifndef NIBBLE_TOKENIZER_NORMALIZERS_H_
#define NIBBLE_TOKENIZER_NORMALIZERS_H_

#include <functional>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/tokenizer/aligned_text.h"

namespace nibble {

// The "normalizer" of tokenizer.json: changes the text before anything cuts it. Immutable.
class Normalizer {
 public:
  static Expected<Normalizer> parse(const Json& json);  // null: changes nothing

  Status apply(AlignedText& text) const;
  bool empty() const { return steps_.empty(); }

 private:
  std::vector<std::function<Status(AlignedText&)>> steps_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_NORMALIZERS_H_
