#include "nibble/tokenizer/word_piece.h"

#include <algorithm>
#include <string>
#include <utility>

#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {

Expected<WordPieceModel> WordPieceModel::parse(const Json& json) {
  const Json* vocab = find_field(json, "vocab");
  NIBBLE_TRY(Vocabulary vocabulary, Vocabulary::parse(vocab ? *vocab : Json()));
  std::vector<PrefixTrie::Entry> entries;
  for (size_t id = 0; id < vocabulary.id_limit(); ++id) {
    const std::string* token = vocabulary.token(static_cast<int32_t>(id));
    if (token && !token->empty()) entries.push_back({*token, static_cast<int32_t>(id)});
  }
  WordPieceModel model(std::move(vocabulary), PrefixTrie(entries));
  NIBBLE_TRY(const std::string prefix, string_field(json, "continuing_subword_prefix", "##"));
  NIBBLE_TRY(const std::string unk_token, string_field(json, "unk_token", "[UNK]"));
  NIBBLE_TRY(model.max_chars_, size_field(json, "max_input_chars_per_word", 100));
  model.inside_ = model.trie_.find(prefix);
  const auto unk_id = model.vocabulary_.find(unk_token);
  if (!unk_id) return fail(ErrorCode::kDataLoss, "unk_token \"{}\" is not in the vocabulary", unk_token);
  model.unk_id_ = *unk_id;
  return model;
}

Status WordPieceModel::tokenize(std::string_view word, std::vector<ModelToken>& tokens) const {
  const auto chars = static_cast<size_t>(
      std::count_if(word.begin(), word.end(), [](char c) { return !is_utf8_continuation(c); }));
  const size_t first = tokens.size();
  bool known = chars <= max_chars_;
  for (size_t begin = 0; known && begin < word.size();) {
    ModelToken longest{PrefixTrie::kNoValue, begin, begin};
    uint32_t node = begin == 0 ? PrefixTrie::kRoot : inside_;
    for (size_t end = begin; node != PrefixTrie::kNoNode && end < word.size();) {
      node = trie_.child(node, word[end]);
      ++end;
      if (node == PrefixTrie::kNoNode || trie_.value(node) == PrefixTrie::kNoValue) continue;
      longest = {trie_.value(node), begin, end};
    }
    known = longest.id != PrefixTrie::kNoValue;
    if (known) tokens.push_back(longest);
    begin = longest.end;
  }
  if (!known) {
    tokens.resize(first);
    tokens.push_back({unk_id_, 0, word.size()});
  }
  return {};
}

}  // namespace nibble
