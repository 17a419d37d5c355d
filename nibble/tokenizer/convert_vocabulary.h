#ifndef NIBBLE_TOKENIZER_CONVERT_VOCABULARY_H_
#define NIBBLE_TOKENIZER_CONVERT_VOCABULARY_H_

#include <string_view>

#include "nibble/tokenizer/older_files.h"

namespace nibble {

// GPT-2's two files, also of Qwen2 and RoBERTa: the class of the tokenizer tells how text is cut.
Expected<ConvertedTokenizer> convert_vocab_and_merges(std::string_view vocab_json, std::string_view merges,
                                                      const TokenizerSettings& settings);
// BERT's: one token a line.
Expected<ConvertedTokenizer> convert_vocab_txt(std::string_view vocab, const TokenizerSettings& settings);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_CONVERT_VOCABULARY_H_
