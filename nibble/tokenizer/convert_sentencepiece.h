#ifndef NIBBLE_TOKENIZER_CONVERT_SENTENCEPIECE_H_
#define NIBBLE_TOKENIZER_CONVERT_SENTENCEPIECE_H_

#include "nibble/tokenizer/older_files.h"
#include "nibble/tokenizer/sentencepiece_model.h"

namespace nibble {

// BPE and Unigram; other kinds are refused.
Expected<ConvertedTokenizer> convert_sentencepiece(const SentencePieceModel& model,
                                                   const TokenizerSettings& settings);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_CONVERT_SENTENCEPIECE_H_
