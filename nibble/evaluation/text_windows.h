#ifndef NIBBLE_EVALUATION_TEXT_WINDOWS_H_
#define NIBBLE_EVALUATION_TEXT_WINDOWS_H_

// A text cut into windows of tokens that are scored: the protocol that a perplexity means nothing without.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/config/pretrained_config.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble {

struct TextProtocol {
  size_t window = 2048;   // tokens; never more than the model's max_position_embeddings
  size_t stride = 0;      // tokens between the starts of two windows; 0: the window, without overlap
  size_t max_tokens = 0;  // of the text; 0: all of it
  // A BOS token at the start of every window; nothing: where the tokenizer puts one before a text by itself.
  std::optional<bool> bos = {};
};

// tokens[i] is scored for i >= first_scored, each given all tokens before it.
struct TextWindow {
  std::vector<int32_t> tokens;
  size_t first_scored = 1;

  size_t num_scored() const { return tokens.size() - first_scored; }
};

struct TextWindows {
  std::vector<TextWindow> windows;
  std::string name;
  std::string text_sha256;
  std::string tokenizer_sha256;  // of tokenizer.json
  size_t window = 0;             // as used
  size_t stride = 0;
  bool bos = false;
  size_t tokens = 0;     // of the text, without BOS tokens
  size_t positions = 0;  // that are scored, in all windows
  // What the scored tokens stand for; a word is counted where it begins.
  size_t bytes = 0;
  size_t words = 0;
};

// The tokens that are scored together with those before them: a last window of less than `window` tokens is
// left out, unless it is the only one. kInvalidArgument for a text of less than two tokens, a stride longer
// than the window, tokens that the model does not have, a BOS that the tokenizer does not have.
Expected<TextWindows> cut_text(std::string_view text, std::string_view name, const TextProtocol& protocol,
                               const ModelFiles& files, const PretrainedConfig& config);

// Everything but the tokens: what stands beside every number that comes from them.
Json to_json(const TextWindows& text);

// The text inside the program: evaluation/default_text.md says where it comes from.
std::string_view default_evaluation_text();

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_TEXT_WINDOWS_H_
