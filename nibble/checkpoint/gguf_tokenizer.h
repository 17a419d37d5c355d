#ifndef NIBBLE_CHECKPOINT_GGUF_TOKENIZER_H_
#define NIBBLE_CHECKPOINT_GGUF_TOKENIZER_H_

#include <map>
#include <string>

#include "nibble/checkpoint/gguf_config.h"

namespace nibble {

// tokenizer.json, tokenizer_config.json and chat_template.jinja from the metadata of a GGUF file;
// nothing if it has no tokenizer. kUnsupported for a kind of tokenizer or of pre-tokenizer that is
// not known: a wrong one would split text in a way that the model has never seen.
Expected<std::map<std::string, std::string>> make_gguf_tokenizer(const GgufHeader& header,
                                                                 const GgufConfig& config);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_GGUF_TOKENIZER_H_
