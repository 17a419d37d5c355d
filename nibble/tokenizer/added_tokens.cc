#include "nibble/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "nibble/base/log.h"
#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

Expected<AddedToken> parse_added_token(const Json& json) {
  AddedToken token;
  const Json* id = find_field(json, "id");
  if (!id || !id->is_number_integer() || *id < 0 || *id > kMaxTokenId) {
    return fail(ErrorCode::kDataLoss, "\"id\" must be an integer from 0 to {}, not {}", kMaxTokenId,
                id ? id->dump() : "missing");
  }
  token.id = id->get<int32_t>();
  NIBBLE_TRY(token.content, string_field(json, "content"));
  NIBBLE_TRY(token.single_word, bool_field(json, "single_word"));
  NIBBLE_TRY(token.lstrip, bool_field(json, "lstrip"));
  NIBBLE_TRY(token.rstrip, bool_field(json, "rstrip"));
  NIBBLE_TRY(token.normalized, bool_field(json, "normalized"));
  NIBBLE_TRY(token.special, bool_field(json, "special"));
  return token;
}

// Whether one of the ranges, which are sorted, holds `position`.
bool covers(std::span<const TextRange> ranges, size_t position) {
  const auto range = std::upper_bound(ranges.begin(), ranges.end(), position,
                                      [](size_t pos, const TextRange& r) { return pos < r.end; });
  return range != ranges.end() && range->begin <= position;
}

bool contains(std::span<const TextRange> ranges, size_t begin, size_t end) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const TextRange& r) { return r.begin <= begin && end <= r.end; });
}

bool is_single_word(std::string_view text, size_t begin, size_t end) {
  const bool before = begin > 0 && is_word(decode_utf8_before(text, begin).value);
  const bool behind = end < text.size() && is_word(decode_utf8(text, end).value);
  return !before && !behind;
}

size_t skip_spaces_back(std::string_view text, size_t end, size_t limit) {
  while (end > limit) {
    const CodePoint c = decode_utf8_before(text, end);
    if (!is_whitespace(c.value)) break;
    end -= c.size;
  }
  return std::max(end, limit);
}

size_t skip_spaces(std::string_view text, size_t pos) {
  while (pos < text.size() && is_whitespace(decode_utf8(text, pos).value)) pos += decode_utf8(text, pos).size;
  return pos;
}

}  // namespace

TokenTrie::TokenTrie() : roots_(256, kNoNode), values_(1) {}

uint32_t TokenTrie::child(uint32_t node, char byte) const {
  const auto found = children_.find((uint64_t{node} << 8) | static_cast<unsigned char>(byte));
  return found == children_.end() ? kNoNode : found->second;
}

void TokenTrie::add(std::string_view text, size_t value) {
  if (text.empty()) return;
  const auto new_node = [&] {
    values_.emplace_back();
    return static_cast<uint32_t>(values_.size() - 1);
  };
  uint32_t& root = roots_[static_cast<unsigned char>(text[0])];
  if (root == kNoNode) root = new_node();
  uint32_t node = root;
  for (const char byte : text.substr(1)) {
    uint32_t& next = children_[(uint64_t{node} << 8) | static_cast<unsigned char>(byte)];
    if (next == kNoNode) next = new_node();
    node = next;
  }
  if (!values_[node]) values_[node] = value;
  ++size_;
}

std::optional<TokenTrie::Match> TokenTrie::longest(std::string_view text, size_t pos) const {
  std::optional<Match> best;
  uint32_t node = roots_[static_cast<unsigned char>(text[pos])];
  for (size_t i = pos; node != kNoNode;) {
    ++i;
    if (values_[node]) best = Match{*values_[node], i - pos};
    node = i < text.size() ? child(node, text[i]) : kNoNode;
  }
  return best;
}

Expected<AddedVocabulary> AddedVocabulary::parse(const Json& added_tokens, const Vocabulary& vocabulary,
                                                 const Normalizer& normalizer) {
  AddedVocabulary added;
  if (added_tokens.is_null()) return added;
  if (!added_tokens.is_array()) {
    return fail(ErrorCode::kDataLoss, "\"added_tokens\" must be a list, not {}",
                json_type_name(added_tokens));
  }
  // The original numbers tokens that the model does not know from the model's size on, whatever
  // the file says.
  auto next_id = static_cast<int32_t>(vocabulary.size());
  for (size_t i = 0; i < added_tokens.size(); ++i) {
    const std::string where = fmt::format("added_tokens[{}]", i);
    NIBBLE_TRY(AddedToken token, at(where, parse_added_token(added_tokens[i])));
    if (token.content.empty()) continue;
    const auto known = added.by_content_.find(token.content);
    const std::optional<int32_t> id =
        known != added.by_content_.end() ? added.tokens_[known->second].id : vocabulary.find(token.content);
    const std::string* owner = vocabulary.token(token.id);
    const auto other = added.by_id_.find(token.id);
    const std::string* other_content =
        other != added.by_id_.end() ? &added.tokens_[other->second].content : owner;
    if (other_content && *other_content != token.content) {
      return fail(ErrorCode::kDataLoss, "the token \"{}\" has the id {}, which belongs to \"{}\"",
                  token.content, token.id, *other_content)
          .at(where)
          .with_fix("Give one of them another id in tokenizer.json, or get the file again.");
    }
    int32_t given = id ? *id : next_id;
    if (!id) ++next_id;
    // A model with holes in its numbers: the file's own number is free, the counted one may not be.
    if (!id && (vocabulary.token(given) || added.by_id_.count(given) > 0)) given = token.id;
    if (given != token.id) {
      warn_once(
          fmt::format("tokenizer.json: the token \"{}\" has the id {}, but gets {}, as Transformers gives it",
                      token.content, token.id, given));
      token.id = given;
    }
    token.spelling = token.content;
    if (token.normalized) {
      AlignedText text(token.content, /*track=*/false);
      NIBBLE_RETURN_IF_ERROR(at(where, normalizer.apply(text)));
      token.spelling = text.text();
    }
    if (token.special) added.special_.insert(token.content);
    added.id_limit_ = std::max(added.id_limit_, static_cast<size_t>(token.id) + 1);
    if (known != added.by_content_.end()) {
      added.tokens_[known->second] = std::move(token);
    } else {
      added.by_id_[token.id] = added.by_content_[token.content] = added.tokens_.size();
      added.tokens_.push_back(std::move(token));
    }
  }
  for (size_t i = 0; i < added.tokens_.size(); ++i) {
    const AddedToken& token = added.tokens_[i];
    (token.normalized ? added.normalized_ : added.plain_).add(token.spelling, i);
    if (token.normalized && token.special) added.has_normalized_special_ = true;
  }
  return added;
}

const AddedToken* AddedVocabulary::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedVocabulary::find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

Status AddedVocabulary::cut(const AlignedText& aligned, const TokenTrie& trie,
                            std::span<const TextRange> literal, std::vector<Piece>& pieces) const {
  const std::string& text = aligned.text();
  size_t covered = 0;
  for (size_t i = 0; i < text.size();) {
    const auto match = trie.longest(text, i);
    if (!match) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[match->value];
    size_t begin = i;
    size_t end = i + match->size;
    if (token.special && !literal.empty()) {
      const auto [input_begin, input_end] = aligned.input_range(begin, end);
      // One that has both its ends from the template is the template's: "<|" + role + "|>".
      if (covers(literal, input_begin) || covers(literal, input_end - 1)) {
        // A token that begins in this one but belongs to the template must still be found.
        i = contains(literal, input_begin, input_end) ? end : i + 1;
        continue;
      }
    }
    i = end;
    if (token.single_word && !is_single_word(text, begin, end)) continue;
    if (token.lstrip) begin = skip_spaces_back(text, begin, covered);
    if (token.rstrip) end = skip_spaces(text, end);
    begin = std::max(begin, covered);  // an rstrip before it took a part of it
    if (covered < begin) pieces.emplace_back(aligned.slice(covered, begin), Piece::kText);
    if (begin < end) pieces.emplace_back(aligned.slice(begin, end), token.id);
    covered = std::max(covered, end);
  }
  if (covered == 0 && !text.empty()) {
    pieces.emplace_back(aligned, Piece::kText);
  } else if (covered < text.size()) {
    pieces.emplace_back(aligned.slice(covered, text.size()), Piece::kText);
  }
  return {};
}

Status AddedVocabulary::extract(AlignedText input, const Normalizer& normalizer,
                                std::span<const TextRange> literal, std::vector<Piece>& pieces) const {
  std::vector<Piece> raw;
  if (plain_.empty()) {
    if (!input.empty()) raw.emplace_back(std::move(input), Piece::kText);
  } else {
    NIBBLE_RETURN_IF_ERROR(cut(input, plain_, literal, raw));
  }
  for (Piece& piece : raw) {
    if (piece.added_id != Piece::kText) {
      pieces.push_back(std::move(piece));
      continue;
    }
    NIBBLE_RETURN_IF_ERROR(normalizer.apply(piece.text));
    if (normalized_.empty()) {
      if (!piece.text.empty()) pieces.push_back(std::move(piece));
    } else {
      NIBBLE_RETURN_IF_ERROR(cut(piece.text, normalized_, literal, pieces));
    }
  }
  return {};
}

}  // namespace nibble
