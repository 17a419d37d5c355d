#ifndef NIBBLE_TOKENIZER_UNICODE_NORMALIZATION_H_
#define NIBBLE_TOKENIZER_UNICODE_NORMALIZATION_H_

#include <string_view>
#include <vector>

#include "nibble/tokenizer/aligned_text.h"

namespace nibble {

struct NormalizationForm {
  bool compatible = false;  // NFKC, NFKD
  bool compose = false;     // NFC, NFKC
};

// The normalized characters, each with its relation to the old ones: how `tokenizers` aligns them.
std::vector<CharChange> normalize_unicode(std::string_view text, NormalizationForm form);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_UNICODE_NORMALIZATION_H_
