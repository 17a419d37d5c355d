#include "nibble/tokenizer/word_model.h"

#include <array>
#include <string>
#include <utility>

#include "nibble/tokenizer/bpe.h"
#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/unigram.h"
#include "nibble/tokenizer/word_level.h"
#include "nibble/tokenizer/word_piece.h"

namespace nibble {
namespace {

template <class Model>
Expected<std::unique_ptr<WordModel>> make(const Json& json) {
  NIBBLE_TRY(Model model, Model::parse(json));
  return std::make_unique<Model>(std::move(model));
}

// The oldest files have no type; what else they have tells.
std::string_view guess_type(const Json& json) {
  if (find_field(json, "merges")) return "BPE";
  if (find_field(json, "max_input_chars_per_word")) return "WordPiece";
  const Json* vocab = find_field(json, "vocab");
  if (!vocab) return "";
  return vocab->is_array() ? "Unigram" : "WordLevel";
}

constexpr std::array<ComponentParser<std::unique_ptr<WordModel>>, 4> kModels = {{
    {"BPE", make<BpeModel>},
    {"Unigram", make<UnigramModel>},
    {"WordPiece", make<WordPieceModel>},
    {"WordLevel", make<WordLevelModel>},
}};

}  // namespace

Expected<std::unique_ptr<WordModel>> WordModel::parse(const Json& json) {
  const Json* field = find_field(json, "type");
  const std::string type =
      field && field->is_string() ? field->get<std::string>() : std::string(guess_type(json));
  for (const auto& [name, parse] : kModels) {
    if (name == type) return parse(json);
  }
  return fail(ErrorCode::kUnsupported, "a model of type \"{}\" is not supported", type)
      .with_fix("Supported: BPE, Unigram, WordPiece, WordLevel.");
}

}  // namespace nibble
