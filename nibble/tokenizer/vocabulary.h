#ifndef NIBBLE_TOKENIZER_VOCABULARY_H_
#define NIBBLE_TOKENIZER_VOCABULARY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "nibble/base/json.h"

namespace nibble {

// Ids above this are refused: the largest vocabularies have a few hundred thousand entries, and
// tables are as long as the largest id.
inline constexpr int32_t kMaxTokenId = (1 << 24) - 1;

// The tokens of a model, both ways. Immutable.
class Vocabulary {
 public:
  // {"token": id, ...}: every id at most once.
  static Expected<Vocabulary> parse(const Json& json);
  // The place in the list is the id; of two equal tokens the later one is found.
  static Expected<Vocabulary> from_list(std::vector<std::string> tokens);
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  size_t size() const { return size_; }               // how many ids have a token
  size_t id_limit() const { return tokens_.size(); }  // largest id + 1
  std::optional<int32_t> find(std::string_view token) const;
  // Null if no token has this id; valid as long as the vocabulary.
  const std::string* token(int32_t id) const;

 private:
  Vocabulary() = default;

  size_t size_ = 0;
  std::vector<std::optional<std::string>> tokens_;     // by id
  std::unordered_map<std::string_view, int32_t> ids_;  // keys lie in tokens_
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_VOCABULARY_H_
