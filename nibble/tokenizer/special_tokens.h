#ifndef NIBBLE_TOKENIZER_SPECIAL_TOKENS_H_
#define NIBBLE_TOKENIZER_SPECIAL_TOKENS_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/json.h"

namespace nibble {

// "bos_token" -> "<s>": the tokens that tokenizer_config.json and special_tokens_map.json name.
using SpecialTokens = std::map<std::string, std::string, std::less<>>;

// Either may be null; what the first says wins. A token is a string or an object with "content".
SpecialTokens read_special_tokens(const Json& tokenizer_config, const Json& special_tokens_map);

struct NamedTemplate {
  std::string name;  // "default", "tool_use"
  std::string source;
};

// The "chat_template" of tokenizer_config.json: a string, or a list of {"name", "template"}.
Expected<std::vector<NamedTemplate>> read_chat_templates(const Json& tokenizer_config);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_SPECIAL_TOKENS_H_
