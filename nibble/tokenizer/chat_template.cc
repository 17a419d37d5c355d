#include "nibble/tokenizer/chat_template.h"

#include <algorithm>

#include "nibble/tokenizer/jinja_interpreter.h"
#include "nibble/tokenizer/jinja_parser.h"

namespace nibble {
namespace {

using jinja::Text;
using jinja::Value;

constexpr std::string_view kUseAnother = "Use another template: --chat-template FILE.";
constexpr size_t kMaxContextDepth = 150;  // below what the interpreter can nest

// A value of the context. Strings from the user keep the mark that they are.
class ContextReader {
 public:
  explicit ContextReader(bool from_user) : from_user_(from_user) {}

  Expected<Value> read(const Json& json, size_t depth = 0) const {
    if (depth > kMaxContextDepth) {
      return fail(ErrorCode::kInvalidArgument, "the messages or tools are nested more than {} deep",
                  kMaxContextDepth);
    }
    switch (json.type()) {
      case Json::value_t::null:
        return Value();
      case Json::value_t::boolean:
        return Value(json.get<bool>());
      case Json::value_t::number_integer:
        return Value(jinja::Int{json.get<int64_t>()});
      case Json::value_t::number_unsigned:
        return Value(jinja::Int{json.get<uint64_t>()});
      case Json::value_t::number_float:
        return Value(json.get<double>());
      case Json::value_t::string:
        return Value(text(json.get_ref<const std::string&>()));
      case Json::value_t::array:
        return read_list(json, depth);
      case Json::value_t::object:
        return read_dict(json, depth);
      default:
        return fail(ErrorCode::kInvalidArgument, "the messages or tools hold binary data");
    }
  }

  Text text(std::string value) const {
    return from_user_ ? Text::from_user(std::move(value)) : Text(std::move(value));
  }

 private:
  Expected<Value> read_list(const Json& json, size_t depth) const {
    auto list = std::make_shared<jinja::Sequence>();
    for (const Json& element : json) {
      NIBBLE_TRY(Value item, read(element, depth + 1));
      list->depth = std::max(list->depth, depth_of(item) + 1);
      list->items.push_back(std::move(item));
    }
    return Value(std::move(list));
  }

  Expected<Value> read_dict(const Json& json, size_t depth) const {
    auto dict = std::make_shared<jinja::Dict>();
    for (const auto& [key, element] : json.items()) {
      NIBBLE_TRY(Value item, read(element, depth + 1));
      dict->depth = std::max(dict->depth, depth_of(item) + 1);
      dict->items.emplace_back(Value(text(key)), std::move(item));
    }
    return Value(std::shared_ptr<const jinja::Dict>(std::move(dict)));
  }

  const bool from_user_;
};

// A message as Transformers hands it to a template: without the keys that are null, and with its
// reasoning under the names that templates read: `thinking` in front, and reasoning_content.
Json normalized_message(const Json& message) {
  if (!message.is_object()) return message;
  Json out = Json::object();
  const Json* reasoning = nullptr;
  for (const char* name : {"reasoning", "thinking", "reasoning_content"}) {
    const auto found = message.find(name);
    if (found != message.end() && !found->is_null()) reasoning = &*found;
  }
  if (reasoning) out["thinking"] = *reasoning;
  for (const auto& [key, value] : message.items()) {
    if (!value.is_null()) out[key] = value;
  }
  if (reasoning) out["reasoning_content"] = *reasoning;
  return out;
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Block block;
  ChatTemplateLimits limits;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Expected<ChatTemplate> ChatTemplate::parse(std::string_view source, const ChatTemplateLimits& limits) {
  Expected<jinja::Block> block = jinja::parse_template(source, limits.max_depth);
  if (!block) return Failure(std::move(block).error().with_fix(kUseAnother));
  return ChatTemplate(std::make_unique<Program>(Program{std::move(*block), limits}));
}

Expected<RenderedChat> ChatTemplate::render(const Json& context) const {
  if (!context.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "the context of a chat template must be an object, not {}",
                json_type_name(context));
  }
  const auto messages = context.find("messages");
  if (messages != context.end() && messages->is_array() && messages->empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "Cannot apply chat template to an empty conversation. Provide at least one message.");
  }
  std::vector<std::pair<std::string, Value>> names;
  for (const auto& [key, value] : context.items()) {
    const bool from_user = !key.ends_with("_token") && !key.ends_with("_tokens");
    const ContextReader reader(from_user);
    if (key == "messages" && value.is_array()) {
      Json chat = Json::array();
      for (const Json& message : value) chat.push_back(normalized_message(message));
      NIBBLE_TRY(Value list, reader.read(chat));
      names.emplace_back(key, std::move(list));
      continue;
    }
    NIBBLE_TRY(Value converted, reader.read(value));
    names.emplace_back(key, std::move(converted));
  }
  if (!context.contains("tools")) names.emplace_back("tools", Value());
  if (!context.contains("documents")) names.emplace_back("documents", Value());
  if (!context.contains("add_generation_prompt")) names.emplace_back("add_generation_prompt", Value(false));

  const std::time_t now = program_->limits.now.value_or(std::time(nullptr));
  Expected<Text> text = jinja::render(program_->block, names, program_->limits, now);
  if (!text) return Failure(std::move(text).error().with_fix(kUseAnother));
  return RenderedChat{std::move(text->bytes), std::move(text->data)};
}

}  // namespace nibble
