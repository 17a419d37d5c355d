#include "nibble/models/inspect_tokenizer.h"

#include <algorithm>
#include <vector>

#include "nibble/tokenizer/older_files.h"
#include "nibble/tokenizer/sentencepiece_model.h"

namespace nibble {
namespace {

std::string sentencepiece_kind(const SentencePieceModel& model) {
  switch (model.model_type) {
    case SentencePieceModel::ModelType::kUnigram:
      return "SentencePiece Unigram";
    case SentencePieceModel::ModelType::kBpe:
      return "SentencePiece BPE";
    case SentencePieceModel::ModelType::kWord:
      return "SentencePiece Word";
    case SentencePieceModel::ModelType::kChar:
      return "SentencePiece Char";
  }
  return "SentencePiece";
}

}  // namespace

Expected<TokenizerFile> find_tokenizer_file(const ModelFiles& files) {
  TokenizerFile found;
  NIBBLE_TRY(const auto config_text, files.read("tokenizer_config.json"));
  if (config_text) {
    NIBBLE_TRY(found.tokenizer_config,
               at("tokenizer_config.json", parse_json(*config_text, {.allow_nan = true})));
  }
  NIBBLE_TRY(const auto text, files.read("tokenizer.json"));
  if (text) {
    NIBBLE_TRY(const Json json, at("tokenizer.json", parse_json(*text)));
    const Json::json_pointer type("/model/type");
    const bool named = json.contains(type) && json[type].is_string();
    found.file = "tokenizer.json";
    found.kind = named ? json[type].get<std::string>() : "tokenizer.json without a model type";
    found.evidence = named ? fmt::format("model.type is \"{}\"", found.kind) : "there is no model.type";
    return found;
  }
  for (const std::string_view name : kSentencePieceFiles) {
    NIBBLE_TRY(const auto bytes, files.read(name));
    if (!bytes) continue;
    const auto model = parse_sentencepiece_model(*bytes);
    found.file = name;
    found.kind = model ? sentencepiece_kind(*model) : "SentencePiece, damaged";
    found.evidence = model ? fmt::format("{} pieces; trainer_spec.model_type", model->pieces.size())
                           : to_string(model.error());
    return found;
  }
  const std::vector<std::string> names = files.list();
  const auto has = [&names](std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (has("vocab.json") && has("merges.txt")) {
    found.kind = "BPE";
    found.file = "vocab.json and merges.txt";
    found.evidence = "a vocabulary with merges";
  } else if (has("vocab.txt")) {
    found.kind = "WordPiece";
    found.file = "vocab.txt";
    found.evidence = "a vocabulary of one token a line";
  }
  return found;
}

}  // namespace nibble
