// Conversations to text, by the model's own template.

#include <utility>

#include "nibble/tokenizer/tokenizer.h"
#include "nibble/tokenizer/tokenizer_state.h"

namespace nibble {

bool Tokenizer::has_chat_template() const { return !state_->chat_templates.empty(); }

Expected<RenderedChat> Tokenizer::apply_chat_template(const Json& messages, const Json& tools,
                                                      bool add_generation_prompt) const {
  const ChatTemplates& templates = state_->chat_templates;
  if (templates.empty()) {
    return fail(ErrorCode::kNotFound, "the model has no chat template")
        .with_fix("Give one with --chat-template FILE, or send plain text.");
  }
  auto chosen = tools.is_null() ? templates.end() : templates.find("tool_use");
  if (chosen == templates.end()) chosen = templates.find("default");
  if (chosen == templates.end()) {
    std::string names;
    for (const auto& [name, parsed] : templates) names += (names.empty() ? "" : ", ") + name;
    return fail(ErrorCode::kNotFound, "the model has chat templates, but none is the default: {}", names)
        .with_fix("Write the one to use into a file and give it with --chat-template FILE.");
  }
  if (!chosen->second) return Failure(chosen->second.error());

  Json context = {{"messages", messages},
                  {"tools", tools},
                  {"documents", nullptr},
                  {"add_generation_prompt", add_generation_prompt}};
  for (const auto& [name, token] : state_->special_tokens) context[name] = token;
  return chosen->second->render(context);
}

Expected<std::vector<int32_t>> Tokenizer::encode_chat(const Json& messages) const {
  NIBBLE_TRY(const RenderedChat chat,
             apply_chat_template(messages, /*tools=*/nullptr, /*add_generation_prompt=*/true));
  if (chat.text.empty()) {
    return fail(ErrorCode::kDataLoss, "the chat template prints nothing for these messages")
        .with_fix("Use another template: --chat-template FILE.");
  }
  // The template writes BOS and the like itself.
  const EncodeOptions options = {.add_special_tokens = false, .literal = chat.literal};
  NIBBLE_TRY(Encoding encoding, encode(chat.text, options));
  return std::move(encoding.ids);
}

Status Tokenizer::set_chat_template(std::string source) {
  NIBBLE_TRY(ChatTemplate parsed, ChatTemplate::parse(source));
  state_->chat_templates.clear();
  state_->chat_templates.emplace("default", std::move(parsed));
  return {};
}

}  // namespace nibble
