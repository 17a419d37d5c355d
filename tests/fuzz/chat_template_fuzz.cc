// Chat templates: any program must end, within its budget of steps and bytes. The limits are a fiftieth of
// those that users have, so that libFuzzer's limits (10 s, 512 MB) leave none of the slack.

#include "nibble/tokenizer/chat_template.h"
#include "tests/fuzz/fuzz.h"

using namespace nibble;

namespace {

const Json& contexts() {
  static const Json list = parse_json(R"([
    {"messages": [{"role": "user", "content": "Hello <s>"}], "add_generation_prompt": true,
     "bos_token": "<s>", "eos_token": "</s>"},
    {"messages": [{"role": "system", "content": "Be brief."},
                  {"role": "user", "content": [{"type": "text", "text": "What is 2 + 2?"}]},
                  {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "a1",
                   "function": {"name": "add", "arguments": {"a": 2, "b": [2, null, 1.5e300]}}}]},
                  {"role": "tool", "name": "add", "content": "4"}],
     "tools": [{"type": "function", "function": {"name": "add", "description": "Adds", "parameters":
                {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}],
     "bos_token": "", "eos_token": "\u4f60"}])")
                               .value();
  return list;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ChatTemplateLimits limits = {
      .max_steps = 100'000, .max_output_bytes = 320'000, .max_depth = 100, .now = 1'768'469'400};
  const auto chat_template = ChatTemplate::parse(fuzz::as_text(data, size), limits);
  if (!fuzz::accepted(chat_template)) return 0;
  for (const Json& context : contexts()) {
    const auto chat = chat_template->render(context);
    if (!fuzz::accepted(chat)) continue;
    NIBBLE_CHECK(chat->text.size() <= limits.max_output_bytes);
    size_t end = 0;
    for (const TextRange& range : chat->literal) {
      NIBBLE_CHECK(range.begin < range.end && range.end <= chat->text.size());
      NIBBLE_CHECK(end == 0 || range.begin > end);
      end = range.end;
    }
  }
  return 0;
}
