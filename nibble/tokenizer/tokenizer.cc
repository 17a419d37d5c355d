#include "nibble/tokenizer/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "nibble/tokenizer/tokenizer_state.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

// Words up to this length are remembered while one text is encoded.
constexpr size_t kMaxCachedBytes = 64;
constexpr size_t kMaxCachedWords = size_t{1} << 16;

// The tokens of the words that this text has had so far. Keys lie in the pieces.
class WordCache {
 public:
  explicit WordCache(const WordModel& model) : model_(model) {}

  // Valid until the next call.
  Expected<std::span<const ModelToken>> tokenize(std::string_view word) {
    if (word.size() > kMaxCachedBytes) return tokenize_uncached(word);
    if (words_.size() >= kMaxCachedWords) {
      const auto known = words_.find(word);
      return known == words_.end() ? tokenize_uncached(word) : tokens_of(known->second);
    }
    const auto [entry, is_new] = words_.try_emplace(word);
    if (is_new) {
      const size_t begin = tokens_.size();
      NIBBLE_RETURN_IF_ERROR(model_.tokenize(word, tokens_));
      entry->second = {begin, tokens_.size()};
    }
    return tokens_of(entry->second);
  }

 private:
  std::span<const ModelToken> tokens_of(std::pair<size_t, size_t> range) const {
    return std::span(tokens_).subspan(range.first, range.second - range.first);
  }
  Expected<std::span<const ModelToken>> tokenize_uncached(std::string_view word) {
    scratch_.clear();
    NIBBLE_RETURN_IF_ERROR(model_.tokenize(word, scratch_));
    return std::span<const ModelToken>(scratch_);
  }

  const WordModel& model_;
  std::unordered_map<std::string_view, std::pair<size_t, size_t>> words_;
  std::vector<ModelToken> tokens_;
  std::vector<ModelToken> scratch_;
};

// Byte positions of a text as code points.
class CodePointIndex {
 public:
  explicit CodePointIndex(std::string_view text) : index_(text.size()) {
    uint32_t count = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      if (!is_utf8_continuation(text[i])) ++count;
      index_[i] = count - 1;
    }
  }

  // What reaches outside of the text is treated as the original does.
  std::pair<size_t, size_t> convert(std::pair<size_t, size_t> bytes) const {
    const auto [begin, end] = bytes;
    if (begin >= index_.size()) return bytes;
    if (end < index_.size()) return {index_[begin], index_[end]};
    return {index_[begin], (end == index_.size() ? index_[end - 1] : index_[begin] + size_t{1}) + 1};
  }

 private:
  std::vector<uint32_t> index_;  // of the code point that each byte belongs to
};

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

const std::string* Tokenizer::State::spelling(int32_t id) const {
  if (const AddedToken* token = added.find(id)) return &token->spelling;
  return model->vocabulary().token(id);
}

Status Tokenizer::State::cut(std::string text, const EncodeOptions& options,
                             std::vector<Piece>& pieces) const {
  // Where text came from is only tracked if somebody asks.
  const bool track = options.with_offsets || pre_tokenizer.needs_input_ranges() ||
                     (!options.literal.empty() && added.has_normalized_special());
  NIBBLE_RETURN_IF_ERROR(
      added.extract(AlignedText(std::move(text), track), normalizer, options.literal, pieces));
  return pre_tokenizer.apply(pieces);
}

Expected<TokenList> Tokenizer::State::tokenize(std::string_view text, const std::vector<Piece>& pieces,
                                               bool with_offsets) const {
  TokenList list;
  list.with_offsets = with_offsets;
  const CodePointIndex code_points(with_offsets ? text : std::string_view());
  const auto add = [&](const Piece& piece, int32_t id, size_t begin, size_t end, std::string_view token) {
    list.ids.push_back(id);
    if (!with_offsets) return;
    list.offsets.push_back(code_points.convert(piece.text.input_range(begin, end)));
    list.spaces.push_back(outer_spaces(token));
  };
  WordCache cache(*model);
  for (const Piece& piece : pieces) {
    const std::string& piece_text = piece.text.text();
    if (piece.added_id != Piece::kText) {
      add(piece, piece.added_id, 0, piece_text.size(), piece_text);
      continue;
    }
    NIBBLE_TRY(const std::span<const ModelToken> tokens, cache.tokenize(piece_text));
    for (const ModelToken& token : tokens) {
      const std::string* spelt = with_offsets ? model->vocabulary().token(token.id) : nullptr;
      add(piece, token.id, token.begin, token.end, spelt ? std::string_view(*spelt) : std::string_view());
    }
  }
  return list;
}

Expected<Encoding> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return fail(ErrorCode::kInvalidArgument, "a text of {} bytes; at most {} are encoded at once",
                text.size(), kMaxTextBytes)
        .with_fix("Encode it in parts.");
  }
  std::string valid;
  EncodeOptions used = options;
  std::vector<TextRange> moved;  // options.literal, where it is in `valid`
  if (is_valid_utf8(text)) {
    valid = text;
  } else {
    std::vector<size_t> positions;
    for (const TextRange& range : options.literal)
      positions.insert(positions.end(), {range.begin, range.end});
    valid = to_valid_utf8(text, positions);
    for (size_t i = 0; i < positions.size(); i += 2) moved.push_back({positions[i], positions[i + 1]});
    used.literal = moved;
  }
  std::vector<Piece> pieces;
  NIBBLE_RETURN_IF_ERROR(state_->cut(valid, used, pieces));
  NIBBLE_TRY(TokenList list, state_->tokenize(valid, pieces, options.with_offsets));
  state_->post_processor.apply(list, options.add_special_tokens);
  return Encoding{std::move(list.ids), std::move(list.offsets)};
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const std::string* spelt = state_->spelling(id);
    if (spelt && !(skip_special_tokens && state_->added.is_special(*spelt))) tokens.push_back(*spelt);
  }
  return state_->decoder.decode(std::move(tokens));
}

size_t Tokenizer::vocab_size() const {
  return std::max(state_->model->vocabulary().id_limit(), state_->added.id_limit());
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  if (const AddedToken* added = state_->added.find(token)) return added->id;
  return state_->model->vocabulary().find(token);
}

std::optional<std::string> Tokenizer::id_to_token(int32_t id) const {
  const std::string* spelt = state_->spelling(id);
  return spelt ? std::optional(*spelt) : std::nullopt;
}

bool Tokenizer::is_special(int32_t id) const {
  const std::string* spelt = state_->spelling(id);
  return spelt && state_->added.is_special(*spelt);
}

std::optional<int32_t> Tokenizer::bos_token_id() const {
  const auto token = state_->special_tokens.find("bos_token");
  return token == state_->special_tokens.end() ? std::nullopt : token_to_id(token->second);
}

std::optional<int32_t> Tokenizer::eos_token_id() const {
  const auto token = state_->special_tokens.find("eos_token");
  return token == state_->special_tokens.end() ? std::nullopt : token_to_id(token->second);
}

}  // namespace nibble
