#include "nibble/tokenizer/special_tokens.h"

#include <optional>
#include <utility>

#include "nibble/tokenizer/json_fields.h"

namespace nibble {
namespace {

std::optional<std::string> token_content(const Json& json) {
  if (json.is_string()) return json.get<std::string>();
  const Json* content = find_field(json, "content");
  if (content && content->is_string()) return content->get<std::string>();
  return std::nullopt;
}

// Every "..._token"; other fields and values that are no token (add_bos_token: true) are not.
void add_tokens(const Json& json, SpecialTokens& tokens) {
  if (!json.is_object()) return;
  for (const auto& [name, value] : json.get_ref<const Json::object_t&>()) {
    if (!std::string_view(name).ends_with("_token")) continue;
    if (auto content = token_content(value)) tokens.emplace(name, std::move(*content));
  }
}

}  // namespace

SpecialTokens read_special_tokens(const Json& tokenizer_config, const Json& special_tokens_map) {
  SpecialTokens tokens;
  add_tokens(tokenizer_config, tokens);
  if (const Json* extra = find_field(tokenizer_config, "extra_special_tokens")) add_tokens(*extra, tokens);
  add_tokens(special_tokens_map, tokens);
  return tokens;
}

Expected<std::vector<NamedTemplate>> read_chat_templates(const Json& tokenizer_config) {
  std::vector<NamedTemplate> templates;
  const Json* field = find_field(tokenizer_config, "chat_template");
  if (!field) return templates;
  if (field->is_string()) {
    templates.push_back({"default", field->get<std::string>()});
    return templates;
  }
  if (!field->is_array()) {
    return fail(ErrorCode::kDataLoss, "\"chat_template\" must be a string or a list, not {}",
                json_type_name(*field));
  }
  for (size_t i = 0; i < field->size(); ++i) {
    const std::string where = fmt::format("chat_template[{}]", i);
    NIBBLE_TRY(std::string name, at(where, string_field((*field)[i], "name")));
    NIBBLE_TRY(std::string source, at(where, string_field((*field)[i], "template")));
    templates.push_back({std::move(name), std::move(source)});
  }
  return templates;
}

}  // namespace nibble
