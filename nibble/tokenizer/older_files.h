#ifndef NIBBLE_TOKENIZER_OLDER_FILES_H_
#define NIBBLE_TOKENIZER_OLDER_FILES_H_

// Models without tokenizer.json: tokenizer.model (SentencePiece), vocab.json with merges.txt, or vocab.txt.
// They are turned into the tokenizer.json that Transformers 5 makes of them.

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "nibble/base/json.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble {

// Names of SentencePiece's file; the first that is there counts.
inline constexpr std::array<std::string_view, 3> kSentencePieceFiles = {"tokenizer.model", "spiece.model",
                                                                        "sentencepiece.bpe.model"};

// What stands beside the vocabulary; null where the model has no such file.
struct TokenizerSettings {
  Json tokenizer_config;    // tokenizer_config.json
  Json special_tokens_map;  // special_tokens_map.json
  Json added_tokens;        // added_tokens.json: {"<pad>": 32000}
  std::string model_type;   // of config.json; empty if there is none
};

struct ConvertedTokenizer {
  Json tokenizer;           // as in tokenizer.json
  Json tokenizer_config;    // with the special tokens that the class of the tokenizer has by default
  std::string source_file;  // which file it was made from, for messages
};

// Nothing if the model has none of these files.
Expected<std::optional<ConvertedTokenizer>> convert_older_files(const ModelFiles& files,
                                                                const TokenizerSettings& settings);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_OLDER_FILES_H_
