#include <algorithm>
#include <array>
#include <utility>

#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble {
namespace {

// The parsed file, or null if the model has none.
Expected<Json> read_json(const ModelFiles& files, std::string_view name) {
  NIBBLE_TRY(const std::optional<std::string> text, files.read(name));
  if (!text) return Json();
  return at(name, parse_json(*text, {.allow_nan = true}));
}

Failure no_tokenizer_json(const ModelFiles& files) {
  constexpr std::array<std::string_view, 8> kOlder = {
      "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json",
      "vocab.txt",       "merges.txt",   "tiktoken.model",          "qwen.tiktoken"};
  const std::vector<std::string> names = files.list();
  std::string found;
  for (const std::string_view name : kOlder) {
    if (std::find(names.begin(), names.end(), name) != names.end())
      found += (found.empty() ? "" : ", ") + std::string(name);
  }
  if (found.empty()) {
    return fail(ErrorCode::kNotFound, "no tokenizer.json")
        .at(files.name)
        .with_fix("Copy tokenizer.json from the model that this one was made from.");
  }
  return fail(ErrorCode::kNotFound, "no tokenizer.json, only the older {}", found)
      .at(files.name)
      .with_fix(fmt::format(
          "Convert it once with Transformers: python -c \"from transformers import AutoTokenizer as T; "
          "T.from_pretrained('{0}').save_pretrained('{0}')\", or copy tokenizer.json from the original "
          "model.",
          files.folder.empty() ? "DIR" : files.folder.string()));
}

}  // namespace

Expected<Tokenizer> AutoTokenizer::from_pretrained(std::string_view model, std::string_view revision) {
  NIBBLE_TRY(const ModelFiles files, find_model(model, revision));
  return from_files(files);
}

Expected<Tokenizer> AutoTokenizer::from_files(const ModelFiles& files) {
  NIBBLE_TRY(const std::optional<std::string> tokenizer_json, files.read("tokenizer.json"));
  if (!tokenizer_json) return no_tokenizer_json(files);
  NIBBLE_TRY(const Json config, at(files.name, read_json(files, "tokenizer_config.json")));
  NIBBLE_TRY(const Json special_tokens_map, at(files.name, read_json(files, "special_tokens_map.json")));
  NIBBLE_TRY(std::optional<std::string> chat_template, files.read("chat_template.jinja"));
  return at(files.name,
            Tokenizer::from_json(*tokenizer_json, config, special_tokens_map, std::move(chat_template)));
}

}  // namespace nibble
