#ifndef NIBBLE_TOKENIZER_CONVERTED_PARTS_H_
#define NIBBLE_TOKENIZER_CONVERTED_PARTS_H_

// Parts of a tokenizer.json that is made from older files.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

#include "nibble/base/json.h"
#include "nibble/tokenizer/older_files.h"

namespace nibble {

// A vocabulary while it is put together (an object of Json finds its keys one by one).
using TokenIds = std::unordered_map<std::string, int32_t>;
// {"token": id}, by id.
Json vocab_json(const TokenIds& vocab);

// Entries of "added_tokens" without their id: by id, and by name ("bos_token").
using AddedEntries = std::map<int32_t, Json>;
using NamedTokens = std::map<std::string, Json>;

// "LlamaTokenizer" of "LlamaTokenizerFast"; empty if tokenizer_config.json does not say.
std::string tokenizer_class(const Json& tokenizer_config);

// The tokens that tokenizer_config.json ("added_tokens_decoder") or added_tokens.json add, by id.
Expected<AddedEntries> added_token_entries(const TokenizerSettings& settings);

// "added_tokens" of tokenizer.json. found: added tokens by id. specials: spellings of tokens that are
// special without being listed; one that the vocabulary does not have gets the next free id.
Json make_added_tokens(AddedEntries found, const NamedTokens& specials, const TokenIds& vocab);

// What tokenizer_config.json and special_tokens_map.json call "..._token", as entries of added_tokens
// without an id. A name that neither gives is taken from `defaults` ({"bos_token": "<s>"}).
NamedTokens named_special_tokens(const TokenizerSettings& settings, const Json& defaults);

// An entry of added_tokens without an id.
Json added_token_entry(std::string_view content, bool special, bool normalized);

// TemplateProcessing: [first] text [last], for those that are not empty and in the vocabulary.
Json surround_with(const std::string& first, const std::string& last, const Json& added_tokens,
                   const TokenIds& vocab);

// The content of a named token; empty if there is none.
std::string content_of(const NamedTokens& tokens, const std::string& name);

// tokenizer_config.json, with the named tokens that it leaves out.
Json config_with(const NamedTokens& tokens, const Json& tokenizer_config);

// An empty tokenizer.json around the parts.
Json tokenizer_json(Json normalizer, Json pre_tokenizer, Json model, Json post_processor, Json decoder,
                    Json added_tokens);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_CONVERTED_PARTS_H_
