#include "nibble/tokenizer/bpe.h"

#include <algorithm>
#include <array>
#include <functional>
#include <queue>
#include <utility>

#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/merge_table.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

// A part of a word: a token, with its neighbours. size 0: joined to the part before it.
struct Symbol {
  int32_t id = 0;
  int32_t prev = kNoToken;
  int32_t next = kNoToken;
  uint32_t size = 0;  // bytes
};

// A merge may have three parts only if a token holds a space; both spellings allow two.
Expected<std::pair<std::string, std::string>> parse_merge(const Json& merge) {
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != text.npos && text.find(' ', space + 1) == text.npos) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return std::pair(merge[0].get<std::string>(), merge[1].get<std::string>());
  }
  return fail(ErrorCode::kDataLoss, "a merge must name two tokens, not {}",
              merge.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80));
}

}  // namespace

struct BpeModel::Tables {
  explicit Tables(Vocabulary v, size_t num_merges) : vocabulary(std::move(v)), merges(num_merges) {}

  std::optional<int32_t> symbol_of(std::string_view character, bool first, bool last,
                                   std::string& buffer) const;
  void split(std::string_view word, std::vector<Symbol>& symbols) const;
  void merge(std::vector<Symbol>& symbols) const;

  Vocabulary vocabulary;
  MergeTable merges;
  std::vector<int32_t> merged_id;            // by rank
  std::array<int32_t, 0x800> short_symbols;  // by code point: token of the character alone
  std::array<int32_t, 256> byte_tokens;      // <0x00> to <0xFF>, for byte_fallback
  std::string continuing_subword_prefix;
  std::string end_of_word_suffix;
  std::optional<int32_t> unk_id;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

BpeModel::BpeModel(std::unique_ptr<Tables> tables) : tables_(std::move(tables)) {}
BpeModel::BpeModel(BpeModel&&) noexcept = default;
BpeModel& BpeModel::operator=(BpeModel&&) noexcept = default;
BpeModel::~BpeModel() = default;

const Vocabulary& BpeModel::vocabulary() const { return tables_->vocabulary; }

Expected<BpeModel> BpeModel::parse(const Json& json) {
  const Json* dropout = find_field(json, "dropout");
  if (dropout && !(dropout->is_number() && *dropout == 0.0)) {
    return fail(ErrorCode::kUnsupported, "dropout is {}: encoding would be random", dropout->dump())
        .with_fix("Set \"dropout\" to null in tokenizer.json.");
  }
  const Json* vocab = find_field(json, "vocab");
  NIBBLE_TRY(Vocabulary vocabulary, Vocabulary::parse(vocab ? *vocab : Json()));
  NIBBLE_TRY(const Json* merges, list_field(json, "merges"));

  auto tables = std::make_unique<Tables>(std::move(vocabulary), merges->size());
  NIBBLE_TRY(tables->continuing_subword_prefix, string_field(json, "continuing_subword_prefix", ""));
  NIBBLE_TRY(tables->end_of_word_suffix, string_field(json, "end_of_word_suffix", ""));
  NIBBLE_TRY(tables->fuse_unk, bool_field(json, "fuse_unk", false));
  NIBBLE_TRY(tables->byte_fallback, bool_field(json, "byte_fallback", false));
  NIBBLE_TRY(tables->ignore_merges, bool_field(json, "ignore_merges", false));
  NIBBLE_TRY(const std::string unk_token, string_field(json, "unk_token", ""));
  if (find_field(json, "unk_token")) {
    tables->unk_id = tables->vocabulary.find(unk_token);
    if (!tables->unk_id)
      return fail(ErrorCode::kDataLoss, "unk_token \"{}\" is not in the vocabulary", unk_token);
  }

  tables->merged_id.reserve(merges->size());
  std::string joined;
  for (size_t rank = 0; rank < merges->size(); ++rank) {
    const std::string where = fmt::format("merges[{}]", rank);
    NIBBLE_TRY(const auto parts, at(where, parse_merge((*merges)[rank])));
    const auto& [left, right] = parts;
    if (left.empty() || right.empty())
      return fail(ErrorCode::kDataLoss, "a merge with the empty token").at(where);
    const size_t prefix_size = std::min(tables->continuing_subword_prefix.size(), right.size());
    joined = left;
    joined.append(right, prefix_size);
    std::array<std::optional<int32_t>, 3> ids;
    size_t i = 0;
    for (const std::string_view token :
         {std::string_view(left), std::string_view(right), std::string_view(joined)}) {
      ids[i] = tables->vocabulary.find(token);
      if (!ids[i]) {
        return fail(ErrorCode::kDataLoss,
                    "the token \"{}\" of the merge of \"{}\" and \"{}\" is not in the vocabulary", token,
                    left, right)
            .at(where);
      }
      ++i;
    }
    tables->merges.insert(*ids[0], *ids[1], {static_cast<uint32_t>(rank), *ids[2]});
    tables->merged_id.push_back(*ids[2]);
  }

  for (char32_t c = 0; c < tables->short_symbols.size(); ++c) {
    std::string character;
    append_utf8(character, c);
    tables->short_symbols[c] = tables->vocabulary.find(character).value_or(kNoToken);
  }
  for (size_t byte = 0; byte < tables->byte_tokens.size(); ++byte) {
    tables->byte_tokens[byte] = tables->vocabulary.find(fmt::format("<0x{:02X}>", byte)).value_or(kNoToken);
  }
  return BpeModel(std::move(tables));
}

std::optional<int32_t> BpeModel::Tables::symbol_of(std::string_view character, bool first, bool last,
                                                   std::string& buffer) const {
  if ((first || continuing_subword_prefix.empty()) && (!last || end_of_word_suffix.empty())) {
    buffer = character;
    const char32_t c = decode_utf8(character, 0).value;
    if (c < short_symbols.size()) {
      const int32_t id = short_symbols[c];
      return id == kNoToken ? std::nullopt : std::optional(id);
    }
    return vocabulary.find(character);
  }
  buffer.clear();
  if (!first) buffer += continuing_subword_prefix;
  buffer += character;
  if (last) buffer += end_of_word_suffix;
  return vocabulary.find(buffer);
}

// The characters of the word as tokens; bytes or unk_token for those that are none.
void BpeModel::Tables::split(std::string_view word, std::vector<Symbol>& symbols) const {
  std::string spelt;
  std::optional<uint32_t> unknown;  // bytes of the unk_token that is still growing
  const auto add = [&](int32_t id, size_t bytes) {
    const auto index = static_cast<int32_t>(symbols.size());
    if (!symbols.empty()) symbols.back().next = index;
    symbols.push_back({id, index - 1, kNoToken, static_cast<uint32_t>(bytes)});
  };
  const auto flush_unknown = [&] {
    if (unknown) add(*unk_id, *unknown);
    unknown.reset();
  };
  for (size_t i = 0; i < word.size();) {
    const size_t size = decode_utf8(word, i).size;
    const std::string_view character = word.substr(i, size);
    const auto id = symbol_of(character, i == 0, i + size == word.size(), spelt);
    i += size;
    if (id) {
      flush_unknown();
      add(*id, size);
      continue;
    }
    const auto has_token = [&](char byte) {
      return byte_tokens[static_cast<unsigned char>(byte)] != kNoToken;
    };
    if (byte_fallback && std::all_of(spelt.begin(), spelt.end(), has_token)) {
      // A growing unk_token is not finished here: it lands behind the bytes, as in the original.
      for (const char byte : spelt) add(byte_tokens[static_cast<unsigned char>(byte)], 1);
      continue;
    }
    if (!unk_id) continue;  // the character is lost
    if (!fuse_unk) flush_unknown();
    unknown = unknown.value_or(0) + static_cast<uint32_t>(size);
  }
  flush_unknown();
}

void BpeModel::Tables::merge(std::vector<Symbol>& symbols) const {
  if (symbols.size() < 2) return;
  // Candidates as rank << 32 | position: the lowest rank first, then the leftmost.
  std::vector<uint64_t> heap;
  heap.reserve(symbols.size());
  const auto candidate = [&](size_t left, size_t right) {
    const Merge* found = merges.find(symbols[left].id, symbols[right].id);
    return found ? std::optional((uint64_t{found->rank} << 32) | left) : std::nullopt;
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    if (const auto next = candidate(i, i + 1)) heap.push_back(*next);
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> queue(std::greater<>(),
                                                                             std::move(heap));
  while (!queue.empty()) {
    const auto position = static_cast<size_t>(queue.top() & 0xFFFFFFFFu);
    const int32_t merged = merged_id[queue.top() >> 32];
    queue.pop();
    Symbol& left = symbols[position];
    if (left.size == 0 || left.next == kNoToken) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    // The pair may have changed since; what counts is that it still makes the same token.
    const Merge* current = merges.find(left.id, right.id);
    if (!current || current->id != merged) continue;
    left.id = merged;
    left.size += right.size;
    left.next = right.next;
    right.size = 0;
    if (left.next != kNoToken) symbols[static_cast<size_t>(left.next)].prev = static_cast<int32_t>(position);
    if (left.prev != kNoToken) {
      if (const auto next = candidate(static_cast<size_t>(left.prev), position)) queue.push(*next);
    }
    if (left.next != kNoToken) {
      if (const auto next = candidate(position, static_cast<size_t>(left.next))) queue.push(*next);
    }
  }
}

Status BpeModel::tokenize(std::string_view word, std::vector<ModelToken>& tokens) const {
  if (word.empty()) return {};
  if (tables_->ignore_merges) {
    if (const auto id = tables_->vocabulary.find(word)) {
      tokens.push_back({*id, 0, word.size()});
      return {};
    }
  }
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  tables_->split(word, symbols);
  tables_->merge(symbols);
  size_t end = 0;
  for (const Symbol& symbol : symbols) {
    if (symbol.size == 0) continue;
    tokens.push_back({symbol.id, end, end + symbol.size});
    end += symbol.size;
  }
  return {};
}

}  // namespace nibble
