#include "nibble/tokenizer/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

// How much worse a character without a token is than the worst token: as in SentencePiece.
constexpr double kUnkPenalty = 10.0;

constexpr uint32_t kUnreached = 0;

// The best way to write the bytes before a position.
struct BestPath {
  double score = 0;
  uint32_t size = kUnreached;  // bytes of its last token
  int32_t id = 0;
};

}  // namespace

Expected<UnigramModel> UnigramModel::parse(const Json& json) {
  NIBBLE_TRY(const Json* list, list_field(json, "vocab"));
  std::vector<std::string> tokens;
  std::vector<double> scores;
  tokens.reserve(list->size());
  scores.reserve(list->size());
  double min_score = std::numeric_limits<double>::infinity();
  for (size_t id = 0; id < list->size(); ++id) {
    const Json& entry = (*list)[id];
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number() ||
        !std::isfinite(entry[1].get<double>())) {
      return fail(ErrorCode::kDataLoss, "must be a token and its score, not {}",
                  entry.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80))
          .at(fmt::format("vocab[{}]", id));
    }
    tokens.push_back(entry[0].get<std::string>());
    scores.push_back(entry[1].get<double>());
    min_score = std::min(min_score, scores.back());
  }
  NIBBLE_TRY(Vocabulary vocabulary, Vocabulary::from_list(std::move(tokens)));
  std::vector<PrefixTrie::Entry> entries;
  entries.reserve(scores.size());
  for (size_t id = 0; id < scores.size(); ++id) {
    const std::string& token = *vocabulary.token(static_cast<int32_t>(id));
    if (!token.empty()) entries.push_back({token, static_cast<int32_t>(id)});
  }
  UnigramModel model(std::move(vocabulary), std::move(scores), PrefixTrie(entries));
  model.unk_score_ = min_score - kUnkPenalty;
  NIBBLE_TRY(model.byte_fallback_, bool_field(json, "byte_fallback", false));
  if (find_field(json, "unk_id")) {
    NIBBLE_TRY(const size_t unk_id, size_field(json, "unk_id"));
    if (unk_id >= model.scores_.size()) {
      return fail(ErrorCode::kDataLoss, "unk_id is {}, but \"vocab\" has {} tokens", unk_id,
                  model.scores_.size());
    }
    model.unk_id_ = static_cast<int32_t>(unk_id);
  }
  for (size_t byte = 0; byte < model.byte_tokens_.size(); ++byte) {
    model.byte_tokens_[byte] = model.vocabulary_.find(fmt::format("<0x{:02X}>", byte));
  }
  return model;
}

// One piece of the best path: a token, or a run of unknown characters.
Status UnigramModel::add_piece(std::string_view word, size_t begin, size_t end,
                               std::vector<ModelToken>& tokens) const {
  const std::string_view piece = word.substr(begin, end - begin);
  // Also a run of unknown characters may spell a token.
  if (const auto id = vocabulary_.find(piece)) {
    tokens.push_back({*id, begin, end});
    return {};
  }
  const auto byte_token = [&](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)]; };
  if (byte_fallback_ &&
      std::all_of(piece.begin(), piece.end(), [&](char byte) { return byte_token(byte).has_value(); })) {
    for (const char byte : piece) tokens.push_back({*byte_token(byte), begin, end});
    return {};
  }
  if (!unk_id_) {
    return fail(ErrorCode::kInvalidArgument,
                "the tokenizer has no token for \"{}\", and none for the unknown", piece.substr(0, 40))
        .with_fix("Leave these characters out, or add \"unk_id\" to the model in tokenizer.json.");
  }
  tokens.push_back({*unk_id_, begin, end});
  return {};
}

Status UnigramModel::tokenize(std::string_view word, std::vector<ModelToken>& tokens) const {
  if (word.empty()) return {};
  std::vector<BestPath> best(word.size() + 1);  // by position
  const auto offer = [&](size_t begin, size_t end, double score, int32_t id) {
    const BestPath path{score, static_cast<uint32_t>(end - begin), id};
    if (best[end].size == kUnreached || path.score > best[end].score) best[end] = path;
  };
  for (size_t begin = 0; begin < word.size();) {
    const double score = best[begin].score;
    const size_t char_size = decode_utf8(word, begin).size;
    bool has_single = false;  // a token that is this character alone
    uint32_t node = PrefixTrie::kRoot;
    for (size_t end = begin; end < word.size();) {
      node = trie_.child(node, word[end]);
      if (node == PrefixTrie::kNoNode) break;
      ++end;
      const int32_t id = trie_.value(node);
      if (id == PrefixTrie::kNoValue) continue;
      offer(begin, end, score + scores_[static_cast<size_t>(id)], id);
      has_single = has_single || end == begin + char_size;
    }
    if (!has_single) offer(begin, begin + char_size, score + unk_score_, unk_id_.value_or(-1));
    begin += char_size;
  }
  // Back along the best path; unknown characters that touch are one piece.
  std::vector<std::pair<size_t, size_t>> pieces;
  bool in_unknown = false;
  for (size_t end = word.size(); end > 0; end -= best[end].size) {
    const size_t begin = end - best[end].size;
    const bool unknown = best[end].id == unk_id_.value_or(-1);
    if (unknown && in_unknown) {
      pieces.back().first = begin;
    } else {
      pieces.emplace_back(begin, end);
    }
    in_unknown = unknown;
  }
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
    NIBBLE_RETURN_IF_ERROR(add_piece(word, piece->first, piece->second, tokens));
  }
  return {};
}

}  // namespace nibble
