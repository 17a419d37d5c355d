#include "nibble/tokenizer/vocabulary.h"

#include <algorithm>

namespace nibble {

Expected<Vocabulary> Vocabulary::parse(const Json& json) {
  if (!json.is_object())
    return fail(ErrorCode::kDataLoss, "\"vocab\" must be an object, not {}", json_type_name(json));
  const auto& entries = json.get_ref<const Json::object_t&>();
  size_t limit = 0;
  for (const auto& [token, id] : entries) {
    if (!id.is_number_integer() || id < 0 || id > kMaxTokenId) {
      return fail(ErrorCode::kDataLoss, "the token \"{}\" has the id {}; ids go from 0 to {}", token,
                  id.dump(), kMaxTokenId);
    }
    limit = std::max(limit, id.get<size_t>() + 1);
  }
  Vocabulary vocabulary;
  vocabulary.tokens_.resize(limit);
  vocabulary.ids_.reserve(entries.size());
  for (const auto& [token, id] : entries) {
    auto& slot = vocabulary.tokens_[id.get<size_t>()];
    if (slot)
      return fail(ErrorCode::kDataLoss, "the tokens \"{}\" and \"{}\" both have the id {}", *slot, token,
                  id.dump());
    slot = token;
    vocabulary.ids_.emplace(*slot, id.get<int32_t>());
  }
  vocabulary.size_ = entries.size();
  return vocabulary;
}

Expected<Vocabulary> Vocabulary::from_list(std::vector<std::string> tokens) {
  if (tokens.size() > static_cast<size_t>(kMaxTokenId)) {
    return fail(ErrorCode::kDataLoss, "\"vocab\" has {} tokens; at most {} are supported", tokens.size(),
                kMaxTokenId);
  }
  Vocabulary vocabulary;
  vocabulary.size_ = tokens.size();
  vocabulary.tokens_.reserve(tokens.size());
  vocabulary.ids_.reserve(tokens.size());
  for (std::string& token : tokens) {
    const auto id = static_cast<int32_t>(vocabulary.tokens_.size());
    vocabulary.tokens_.emplace_back(std::move(token));
    vocabulary.ids_[*vocabulary.tokens_.back()] = id;
  }
  return vocabulary;
}

std::optional<int32_t> Vocabulary::find(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

const std::string* Vocabulary::token(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens_.size()) return nullptr;
  const auto& token = tokens_[static_cast<size_t>(id)];
  return token ? &*token : nullptr;
}

}  // namespace nibble
