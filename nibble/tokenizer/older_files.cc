#include "nibble/tokenizer/older_files.h"

#include <string>
#include <string_view>
#include <utility>

#include "nibble/tokenizer/convert_sentencepiece.h"
#include "nibble/tokenizer/convert_vocabulary.h"
#include "nibble/tokenizer/sentencepiece_model.h"

namespace nibble {

Expected<std::optional<ConvertedTokenizer>> convert_older_files(const ModelFiles& files,
                                                                const TokenizerSettings& settings) {
  const auto named =
      [](std::string_view file,
         Expected<ConvertedTokenizer> converted) -> Expected<std::optional<ConvertedTokenizer>> {
    if (!converted) return at(file, std::move(converted));
    converted->source_file = file;
    return std::optional(std::move(*converted));
  };
  for (const std::string_view file : kSentencePieceFiles) {
    NIBBLE_TRY(const std::optional<std::string> bytes, files.read(file));
    if (!bytes) continue;
    NIBBLE_TRY(const SentencePieceModel model, at(file, parse_sentencepiece_model(*bytes)));
    return named(file, convert_sentencepiece(model, settings));
  }
  NIBBLE_TRY(const std::optional<std::string> vocab_json, files.read("vocab.json"));
  NIBBLE_TRY(const std::optional<std::string> merges, files.read("merges.txt"));
  if (vocab_json && merges) {
    return named("vocab.json and merges.txt", convert_vocab_and_merges(*vocab_json, *merges, settings));
  }
  NIBBLE_TRY(const std::optional<std::string> vocab_txt, files.read("vocab.txt"));
  if (vocab_txt) return named("vocab.txt", convert_vocab_txt(*vocab_txt, settings));
  return std::optional<ConvertedTokenizer>();
}

}  // namespace nibble
