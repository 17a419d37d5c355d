#ifndef NIBBLE_TOKENIZER_TOKENIZER_STATE_H_
#define NIBBLE_TOKENIZER_TOKENIZER_STATE_H_

// What a Tokenizer holds: the stages of tokenizer.json, in the order in which a text passes them.

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/tokenizer/added_tokens.h"
#include "nibble/tokenizer/decoders.h"
#include "nibble/tokenizer/normalizers.h"
#include "nibble/tokenizer/post_processors.h"
#include "nibble/tokenizer/pre_tokenizers.h"
#include "nibble/tokenizer/special_tokens.h"
#include "nibble/tokenizer/tokenizer.h"
#include "nibble/tokenizer/word_model.h"

namespace nibble {

// A template that does not parse is an error for who wants to chat, not for who loads the model.
using ChatTemplates = std::map<std::string, Expected<ChatTemplate>, std::less<>>;

struct Tokenizer::State {
  AddedVocabulary added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<WordModel> model;
  PostProcessor post_processor;
  TokenDecoder decoder;
  SpecialTokens special_tokens;
  ChatTemplates chat_templates;  // by name; "default" if there is only one

  // Added tokens, and the words between them. `text` is valid UTF-8.
  Status cut(std::string text, const EncodeOptions& options, std::vector<Piece>& pieces) const;
  Expected<TokenList> tokenize(std::string_view text, const std::vector<Piece>& pieces,
                               bool with_offsets) const;
  // How decoding writes the token; null for an id that no token has.
  const std::string* spelling(int32_t id) const;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_TOKENIZER_STATE_H_
