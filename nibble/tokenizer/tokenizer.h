#ifndef NIBBLE_TOKENIZER_TOKENIZER_H_
#define NIBBLE_TOKENIZER_TOKENIZER_H_

// tokenizer.json: text to token ids and back, equal to Hugging Face's `tokenizers`.
//
//   NIBBLE_TRY(const Tokenizer tokenizer, AutoTokenizer::from_pretrained("HuggingFaceTB/SmolLM2-135M"));
//   NIBBLE_TRY(const Encoding encoding, tokenizer.encode("Hello"));

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/tokenizer/chat_template.h"
#include "nibble/tokenizer/special_tokens.h"

namespace nibble {

struct EncodeOptions {
  bool add_special_tokens = true;  // run the post-processor: BOS, EOS, templates
  bool with_offsets = false;
  // Byte ranges of the text, sorted, in which special tokens are not recognised: what a user wrote
  // inside a chat message stays text, even if it spells <|im_end|>.
  std::span<const TextRange> literal = {};
};

struct Encoding {
  std::vector<int32_t> ids;
  // [begin, end) in code points of the original text, one per id; only with with_offsets.
  std::vector<std::pair<size_t, size_t>> offsets;
};

// Immutable; any thread.
class Tokenizer {
 public:
  // tokenizer_json: text of tokenizer.json. tokenizer_config, special_tokens_map: parsed JSON or
  // null. template_files: of files of their own; they win over what tokenizer_config has.
  static Expected<Tokenizer> from_json(std::string_view tokenizer_json, const Json& tokenizer_config,
                                       const Json& special_tokens_map,
                                       const std::vector<NamedTemplate>& template_files);

  // The same of a tokenizer.json that was parsed, or made, before.
  static Expected<Tokenizer> from_parsed(const Json& tokenizer_json, const Json& tokenizer_config,
                                         const Json& special_tokens_map,
                                         const std::vector<NamedTemplate>& template_files);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  Expected<Encoding> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // Ids outside the vocabulary are left out, as the original does.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;

  size_t vocab_size() const;  // largest id + 1, added tokens included
  std::optional<int32_t> token_to_id(std::string_view token) const;
  std::optional<std::string> id_to_token(int32_t id) const;
  bool is_special(int32_t id) const;
  std::optional<int32_t> bos_token_id() const;
  std::optional<int32_t> eos_token_id() const;

  bool has_chat_template() const;
  // messages: [{"role": "user", "content": "..."}, ...], as Transformers takes them; tools: a list
  // or null. The text, and which parts of it came from the messages (EncodeOptions::literal).
  Expected<RenderedChat> apply_chat_template(const Json& messages, const Json& tools,
                                             bool add_generation_prompt) const;
  // The ids of messages through the template, ready for the answer. What the messages hold stays text, even
  // where it spells a special token.
  Expected<std::vector<int32_t>> encode_chat(const Json& messages) const;
  // Replaces the template (--chat-template FILE).
  Status set_chat_template(std::string source);

 private:
  friend class StreamDecoder;
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct AutoTokenizer {
  static Expected<Tokenizer> from_pretrained(std::string_view model, std::string_view revision = {});
  static Expected<Tokenizer> from_files(const ModelFiles& files);
};

// Turns a stream of ids into text piece by piece; a piece never ends inside a UTF-8 character, and
// all pieces together are what decode() gives for all ids. (So a run of byte tokens, <0xE4><0xBD>...,
// comes out when it has ended: one wrong byte makes decode() replace every byte of the run.)
class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  std::string push(int32_t id);
  std::string finish();  // what is left, incomplete characters as U+FFFD

 private:
  std::string take(bool all);

  const Tokenizer& tokenizer_;
  const bool skip_special_tokens_;
  // The last ids, of which the first `read_` have been given out. They stay as context: decoders
  // treat the first token and the first space of a text in their own way.
  std::vector<int32_t> ids_;
  size_t read_ = 0;
  std::string read_text_;  // what these first ids decode to
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_TOKENIZER_H_
