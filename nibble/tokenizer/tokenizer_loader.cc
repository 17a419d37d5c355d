// tokenizer.json and its companions to a Tokenizer.

#include <algorithm>
#include <array>
#include <utility>

#include "nibble/config/file_error.h"
#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/tokenizer.h"
#include "nibble/tokenizer/tokenizer_state.h"

namespace nibble {
namespace {

constexpr std::string_view kFile = "tokenizer.json";

const Json& field_or_null(const Json& json, std::string_view name) {
  static const Json kNull;
  const Json* field = find_field(json, name);
  return field ? *field : kNull;
}

// Slow tokenizers of these classes add BOS (and EOS) in code. A tokenizer.json that was converted
// without a post-processor relies on the configuration to say so.
bool is_llama_like(const Json& tokenizer_config) {
  constexpr std::array<std::string_view, 4> kClasses = {"LlamaTokenizer", "CodeLlamaTokenizer",
                                                        "GemmaTokenizer", "CohereTokenizer"};
  const Json* field = find_field(tokenizer_config, "tokenizer_class");
  if (!field || !field->is_string()) return false;
  std::string_view name = field->get_ref<const std::string&>();
  if (name.ends_with("Fast")) name.remove_suffix(4);
  return std::find(kClasses.begin(), kClasses.end(), name) != kClasses.end();
}

Expected<ChatTemplates> load_chat_templates(const Json& tokenizer_config,
                                            const std::vector<NamedTemplate>& template_files) {
  ChatTemplates templates;
  for (const NamedTemplate& one : template_files) {
    const std::string file = one.name == "default" ? "chat_template.jinja" : one.name + ".jinja";
    templates.emplace(one.name, at_file(file, ChatTemplate::parse(one.source)));
  }
  if (!templates.empty()) return templates;
  NIBBLE_TRY(const std::vector<NamedTemplate> named, read_chat_templates(tokenizer_config));
  for (const NamedTemplate& one : named) {
    templates.emplace(one.name, at_file("chat_template", ChatTemplate::parse(one.source)));
  }
  return templates;
}

}  // namespace

Expected<Tokenizer> Tokenizer::from_json(std::string_view tokenizer_json, const Json& tokenizer_config,
                                         const Json& special_tokens_map,
                                         const std::vector<NamedTemplate>& template_files) {
  NIBBLE_TRY(const Json json, at(kFile, parse_json(tokenizer_json)));
  return from_parsed(json, tokenizer_config, special_tokens_map, template_files);
}

Expected<Tokenizer> Tokenizer::from_parsed(const Json& json, const Json& tokenizer_config,
                                           const Json& special_tokens_map,
                                           const std::vector<NamedTemplate>& template_files) {
  if (!json.is_object()) {
    return fail(ErrorCode::kDataLoss, "must hold an object, not {}", json_type_name(json)).at(kFile);
  }
  const Json* version = find_field(json, "version");
  if (version && *version != "1.0") {
    return fail(ErrorCode::kUnsupported, "version {} is not supported", version->dump())
        .at(kFile)
        .with_fix("Supported: \"1.0\".");
  }
  // "truncation" and "padding" say how a batch was last prepared; Transformers overrides both.
  const auto parse = [&](std::string_view stage, auto parse_stage) {
    return at(kFile, at(stage, parse_stage(field_or_null(json, stage))));
  };
  NIBBLE_TRY(Normalizer normalizer, parse("normalizer", Normalizer::parse));
  NIBBLE_TRY(PreTokenizer pre_tokenizer, parse("pre_tokenizer", PreTokenizer::parse));
  NIBBLE_TRY(std::unique_ptr<WordModel> model, parse("model", WordModel::parse));
  NIBBLE_TRY(PostProcessor post_processor, parse("post_processor", PostProcessor::parse));
  NIBBLE_TRY(TokenDecoder decoder, parse("decoder", TokenDecoder::parse));
  NIBBLE_TRY(AddedVocabulary added, at(kFile, AddedVocabulary::parse(field_or_null(json, "added_tokens"),
                                                                     model->vocabulary(), normalizer)));
  NIBBLE_TRY(ChatTemplates templates,
             at("tokenizer_config.json", load_chat_templates(tokenizer_config, template_files)));
  Tokenizer tokenizer(std::make_unique<State>(State{
      .added = std::move(added),
      .normalizer = std::move(normalizer),
      .pre_tokenizer = std::move(pre_tokenizer),
      .model = std::move(model),
      .post_processor = std::move(post_processor),
      .decoder = std::move(decoder),
      .special_tokens = read_special_tokens(tokenizer_config, special_tokens_map),
      .chat_templates = std::move(templates),
  }));
  if (!find_field(json, "post_processor") && is_llama_like(tokenizer_config)) {
    NIBBLE_TRY(const bool add_bos,
               at("tokenizer_config.json", bool_field(tokenizer_config, "add_bos_token", true)));
    NIBBLE_TRY(const bool add_eos,
               at("tokenizer_config.json", bool_field(tokenizer_config, "add_eos_token", false)));
    const auto ids = [](bool wanted, std::optional<int32_t> id) {
      return wanted && id ? std::vector<int32_t>{*id} : std::vector<int32_t>{};
    };
    tokenizer.state_->post_processor = PostProcessor::bos_eos(ids(add_bos, tokenizer.bos_token_id()),
                                                              ids(add_eos, tokenizer.eos_token_id()));
  }
  return tokenizer;
}

}  // namespace nibble
