#ifndef NIBBLE_MODELS_INSPECT_TOKENIZER_H_
#define NIBBLE_MODELS_INSPECT_TOKENIZER_H_

#include <string>

#include "nibble/base/json.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble {

// Which tokenizer a model has, from the files that AutoTokenizer would read, in its order.
struct TokenizerFile {
  std::string kind = "none";  // "BPE", "Unigram", "WordPiece", "WordLevel", "SentencePiece BPE"...
  std::string file;           // "tokenizer.json"; empty: none
  std::string evidence;       // "model.type is \"BPE\""
  Json tokenizer_config;      // tokenizer_config.json; null: none
};

// An error only for files that are no JSON.
Expected<TokenizerFile> find_tokenizer_file(const ModelFiles& files);

}  // namespace nibble

#endif  // NIBBLE_MODELS_INSPECT_TOKENIZER_H_
