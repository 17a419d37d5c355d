// `nibble chat-template`: what a model is really shown when it is given messages.

#include <memory>

#include "nibble/cli/command.h"
#include "nibble/cli/input.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble::cli {
namespace {

struct ChatTemplateArguments {
  CommonOptions common;
  ModelOption model;
  std::string messages;
  std::string tools;
  std::string chat_template;
  bool add_generation_prompt = false;
};

Expected<Json> read_list(const std::string& file, std::string_view what) {
  NIBBLE_TRY(Json json, read_json_file(file));
  if (!json.is_array()) {
    return fail(ErrorCode::kInvalidArgument, "{}, but {} are a list", json_type_name(json), what)
        .at(file)
        .with_fix(R"(For example: [{"role": "user", "content": "Hello"}])");
  }
  return json;
}

Status render(const ChatTemplateArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_TRY(const Json messages, read_list(options.messages, "messages"));
  Json tools;  // null
  if (!options.tools.empty()) {
    NIBBLE_TRY(tools, read_list(options.tools, "tools"));
  }
  NIBBLE_TRY(Tokenizer tokenizer,
             AutoTokenizer::from_pretrained(options.model.model, options.model.revision));
  if (!options.chat_template.empty()) {
    NIBBLE_TRY(std::string source, read_input(options.chat_template));
    NIBBLE_RETURN_IF_ERROR(at(options.chat_template, tokenizer.set_chat_template(std::move(source))));
  }
  NIBBLE_TRY(const RenderedChat chat,
             tokenizer.apply_chat_template(messages, tools, options.add_generation_prompt));
  if (!options.common.json) return write_stdout(chat.text);
  Json literal = Json::array();
  for (const TextRange& range : chat.literal) literal.push_back({range.begin, range.end});
  return write_json({{"text", chat.text}, {"literal", literal}});
}

Action define_chat_template(CLI::App& app) {
  const auto options = std::make_shared<ChatTemplateArguments>();
  add_model_option(app, options->model);
  app.add_option("--messages", options->messages, "A JSON list of messages; - for stdin")
      ->type_name("FILE")
      ->required();
  app.add_option("--tools", options->tools, "A JSON list of tools")->type_name("FILE");
  app.add_option("--chat-template", options->chat_template, "Use this template, not the model's")
      ->type_name("FILE");
  app.add_flag("--add-generation-prompt", options->add_generation_prompt,
               "End where the model's answer begins");
  add_common_options(app, options->common, "Print text and the byte ranges that came from the messages");
  return [options] { return render(*options); };
}

}  // namespace

const Command kChatTemplateCommand = {
    .name = "chat-template",
    .summary = "Print messages as the model is shown them",
    .examples =
        "  nibble chat-template ./model --messages chat.json --add-generation-prompt\n"
        "  nibble chat-template ./model --messages chat.json --tools tools.json --json",
    .define = define_chat_template,
};

}  // namespace nibble::cli
