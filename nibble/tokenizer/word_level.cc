#include "nibble/tokenizer/word_level.h"

#include <string>

#include "nibble/tokenizer/json_fields.h"

namespace nibble {

Expected<WordLevelModel> WordLevelModel::parse(const Json& json) {
  const Json* vocab = find_field(json, "vocab");
  NIBBLE_TRY(Vocabulary vocabulary, Vocabulary::parse(vocab ? *vocab : Json()));
  WordLevelModel model(std::move(vocabulary));
  NIBBLE_TRY(const std::string unk_token, string_field(json, "unk_token", "<unk>"));
  model.unk_id_ = model.vocabulary_.find(unk_token);
  return model;
}

Status WordLevelModel::tokenize(std::string_view word, std::vector<ModelToken>& tokens) const {
  if (word.empty()) return {};
  const auto id = vocabulary_.find(word);
  if (!id && !unk_id_) {
    return fail(ErrorCode::kInvalidArgument,
                "the tokenizer has no token for \"{}\", and none for the unknown", word.substr(0, 40))
        .with_fix("Leave this word out, or add \"unk_token\" to the model in tokenizer.json.");
  }
  tokens.push_back({id ? *id : *unk_id_, 0, word.size()});
  return {};
}

}  // namespace nibble
