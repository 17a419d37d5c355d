#include <algorithm>
#include <array>
#include <utility>

#include "nibble/config/file_error.h"
#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/older_files.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble {
namespace {

// The parsed file, or null if the model has none.
Expected<Json> read_json(const ModelFiles& files, std::string_view name) {
  NIBBLE_TRY(const std::optional<std::string> text, files.read(name));
  if (!text) return Json();
  return at(name, parse_json(*text, {.allow_nan = true}));
}

Failure no_tokenizer(const ModelFiles& files) {
  constexpr std::array<std::string_view, 4> kOther = {"tiktoken.model", "qwen.tiktoken", "tekken.json",
                                                      "vocab.json"};
  const std::vector<std::string> names = files.list();
  std::string found;
  for (const std::string_view name : kOther) {
    if (std::find(names.begin(), names.end(), name) != names.end())
      found += (found.empty() ? "" : ", ") + std::string(name);
  }
  if (found.empty()) {
    return fail(ErrorCode::kNotFound, "no tokenizer.json, tokenizer.model, vocab.json or vocab.txt")
        .with_fix("Copy the tokenizer's files from the model that this one was made from.");
  }
  return fail(ErrorCode::kNotFound, "no tokenizer.json, and {} alone cannot be read", found)
      .with_fix(fmt::format(
          "Convert it once with Transformers: python -c \"from transformers import AutoTokenizer as T; "
          "T.from_pretrained('{0}').save_pretrained('{0}')\", or copy tokenizer.json from the original "
          "model.",
          files.folder.empty() ? "DIR" : files.folder.string()));
}

Expected<std::string> model_type(const ModelFiles& files) {
  NIBBLE_TRY(const Json config, read_json(files, "config.json"));
  const Json* field = find_field(config, "model_type");
  return field && field->is_string() ? field->get<std::string>() : std::string();
}

Expected<Tokenizer> from_older_files(const ModelFiles& files, const Json& config, const Json& special_tokens,
                                     const std::vector<NamedTemplate>& template_files) {
  TokenizerSettings settings{config, special_tokens, Json(), {}};
  NIBBLE_TRY(settings.added_tokens, read_json(files, "added_tokens.json"));
  NIBBLE_TRY(settings.model_type, model_type(files));
  NIBBLE_TRY(const std::optional<ConvertedTokenizer> converted, convert_older_files(files, settings));
  if (!converted) return no_tokenizer(files);
  return at(fmt::format("made from {}", converted->source_file),
            Tokenizer::from_parsed(converted->tokenizer, converted->tokenizer_config, special_tokens,
                                   template_files));
}

// chat_template.jinja is the one called "default".
Expected<std::vector<NamedTemplate>> read_template_files(const ModelFiles& files) {
  std::vector<NamedTemplate> templates;
  NIBBLE_TRY(std::optional<std::string> main, files.read("chat_template.jinja"));
  if (main) templates.push_back({"default", *std::move(main)});
  for (const std::string& file : files.list_below(kChatTemplatesFolder)) {
    const std::filesystem::path path = file;
    if (path.extension() != ".jinja") continue;
    NIBBLE_TRY(std::string source, files.read_required(file));
    templates.push_back({path.stem(), std::move(source)});
  }
  return templates;
}

}  // namespace

Expected<Tokenizer> AutoTokenizer::from_pretrained(std::string_view model, std::string_view revision) {
  NIBBLE_TRY(const ModelFiles files, find_model(model, revision));
  return from_files(files);
}

Expected<Tokenizer> AutoTokenizer::from_files(const ModelFiles& files) {
  NIBBLE_TRY(const std::optional<std::string> tokenizer_json, files.read("tokenizer.json"));
  NIBBLE_TRY(const Json config, at(files.name, read_json(files, "tokenizer_config.json")));
  NIBBLE_TRY(const Json special_tokens_map, at(files.name, read_json(files, "special_tokens_map.json")));
  NIBBLE_TRY(const std::vector<NamedTemplate> template_files, read_template_files(files));
  if (!tokenizer_json) {
    return at_file(files.name, from_older_files(files, config, special_tokens_map, template_files));
  }
  return at_file(files.name,
                 Tokenizer::from_json(*tokenizer_json, config, special_tokens_map, template_files));
}

}  // namespace nibble
