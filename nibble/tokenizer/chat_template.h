#ifndef NIBBLE_TOKENIZER_CHAT_TEMPLATE_H_
#define NIBBLE_TOKENIZER_CHAT_TEMPLATE_H_

// Chat templates: the part of Jinja that they use, run by a small interpreter that can do nothing
// but build a string. It has a step budget and an output budget, so that no template from a
// checkpoint can hang or exhaust the program.

#include <cstddef>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/json.h"

namespace nibble {

// Bytes [begin, end) of a text.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;

  bool operator==(const TextRange&) const = default;
};

struct RenderedChat {
  std::string text;
  // The parts of `text` that came out of the context (messages, tools, documents and other keys, but
  // not the special tokens: keys that end in _token or _tokens), not out of the template: sorted,
  // disjoint, never touching. A special token that lies in one of them is plain text.
  std::vector<TextRange> literal;
};

struct ChatTemplateLimits {
  size_t max_steps = 5'000'000;          // evaluated nodes
  size_t max_output_bytes = 16'000'000;  // of the result and of any single string
  size_t max_depth = 100;                // nested expressions, blocks and macro calls
  std::optional<std::time_t> now = {};   // what strftime_now tells; the clock if empty
};

// Immutable; any thread.
class ChatTemplate {
 public:
  // The environment is that of Transformers: trim_blocks, lstrip_blocks, loop controls,
  // raise_exception, strftime_now, tojson without escaping.
  static Expected<ChatTemplate> parse(std::string_view source, const ChatTemplateLimits& limits = {});

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // context: an object with messages, tools, add_generation_prompt, bos_token, eos_token... What
  // raise_exception says, an undefined name that is used, an unknown filter or an exhausted budget
  // are errors with the line of the template: kInvalidArgument of raise_exception, kDataLoss of the others.
  // As Transformers does, it defines tools and documents (null) and add_generation_prompt (false) where they
  // are missing, refuses an empty conversation, drops the keys of messages that are null, and passes
  // reasoning_content on as `thinking` (and the other way round).
  Expected<RenderedChat> render(const Json& context) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_CHAT_TEMPLATE_H_
