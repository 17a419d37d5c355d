// SentencePiece's "precompiled_charsmap": a trie of byte strings in a double array, each leading to a
// text that takes its place. Layout: the size of the trie in bytes (uint32), its units (uint32 each),
// then the texts, each with a zero byte behind it. All little-endian.
//
// A unit of the trie (Yata's Darts-clone): bits 0-7 and 31 are the label, bit 8 says that a value
// follows, bits 10-30 are the offset to the children, in units of 256 if bit 9 is set. A value is a unit
// with bit 31 set; its other bits are the position of the text.

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nibble/tokenizer/base64.h"
#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/normalizer_steps.h"

namespace nibble {
namespace {

// A grapheme that has more bytes is looked up character by character.
constexpr size_t kMaxGraphemeBytes = 5;

class CharsMap {
 public:
  static Expected<CharsMap> parse(std::string_view bytes) {
    CharsMap map;
    if (bytes.empty()) return map;  // changes nothing
    const size_t trie_bytes = bytes.size() < 4 ? 0 : read_u32(bytes, 0);
    if (bytes.size() < 4 || trie_bytes % 4 != 0 || trie_bytes > bytes.size() - 4) {
      return fail(ErrorCode::kDataLoss, "\"precompiled_charsmap\" has {} bytes, too few for its table",
                  bytes.size());
    }
    for (size_t i = 0; i < trie_bytes; i += 4) map.units_.push_back(read_u32(bytes, 4 + i));
    map.texts_ = bytes.substr(4 + trie_bytes);
    if (!is_valid_utf8(map.texts_)) {
      return fail(ErrorCode::kDataLoss, "\"precompiled_charsmap\" has texts that are not UTF-8");
    }
    return map;
  }

  // What takes the place of `part`: as the original does it, the text of the shortest key that `part`
  // begins with takes the place of all of it.
  std::optional<std::string_view> find(std::string_view part) const {
    uint32_t unit = 0;
    size_t node = 0;
    if (!load(node, unit)) return std::nullopt;
    node ^= offset(unit);
    for (const char byte : part) {
      const uint32_t label = static_cast<unsigned char>(byte);
      if (label == 0) return std::nullopt;
      node ^= label;
      if (!load(node, unit) || (unit & 0x800000FFu) != label) return std::nullopt;
      node ^= offset(unit);
      if (((unit >> 8) & 1) == 0) continue;
      if (!load(node, unit)) return std::nullopt;
      const size_t position = unit & 0x7FFFFFFFu;
      if (position >= texts_.size() || is_utf8_continuation(texts_[position])) return std::nullopt;
      const std::string_view rest = std::string_view(texts_).substr(position);
      return rest.substr(0, rest.find('\0'));
    }
    return std::nullopt;
  }

 private:
  static uint32_t read_u32(std::string_view bytes, size_t at) {
    const auto byte = [&](size_t i) { return uint32_t{static_cast<unsigned char>(bytes[at + i])}; };
    return byte(0) | (byte(1) << 8) | (byte(2) << 16) | (byte(3) << 24);
  }
  static size_t offset(uint32_t unit) { return size_t{unit >> 10} << ((unit & 0x200u) >> 6); }
  bool load(size_t node, uint32_t& unit) const {
    if (node >= units_.size()) return false;
    unit = units_[node];
    return true;
  }

  std::vector<uint32_t> units_;
  std::string texts_;
};

// Appends `text`, which takes the place of `old_count` characters.
void replace_chars(std::string_view text, size_t old_count, std::vector<CharChange>& out) {
  const size_t new_count = count_utf8(text);
  for (size_t i = 0, n = 0; i < text.size(); ++n) {
    const CodePoint c = decode_utf8(text, i);
    i += c.size;
    out.push_back({c.value, n >= old_count ? 1 : 0});
  }
  if (new_count < old_count && !out.empty()) out.back().change -= static_cast<int>(old_count - new_count);
}

}  // namespace

Expected<NormalizerStep> parse_precompiled(const Json& json) {
  NIBBLE_TRY(const std::string encoded, string_field(json, "precompiled_charsmap", ""));
  const std::optional<std::string> bytes = decode_base64(encoded);
  if (!bytes) return fail(ErrorCode::kDataLoss, "\"precompiled_charsmap\" is not base64");
  NIBBLE_TRY(CharsMap parsed, CharsMap::parse(*bytes));
  return [map = std::make_shared<const CharsMap>(std::move(parsed))](AlignedText& text) -> Status {
    std::vector<CharChange> out;
    out.reserve(text.text().size());
    bool modified = false;
    const std::string_view all = text.text();
    for (size_t begin = 0; begin < all.size();) {
      const std::string_view grapheme = all.substr(begin, grapheme_end(all, begin) - begin);
      begin += grapheme.size();
      if (grapheme.size() <= kMaxGraphemeBytes) {
        if (const auto text_for = map->find(grapheme)) {
          replace_chars(*text_for, count_utf8(grapheme), out);
          modified = true;
          continue;
        }
      }
      for (size_t i = 0; i < grapheme.size();) {
        const CodePoint c = decode_utf8(grapheme, i);
        if (const auto text_for = map->find(grapheme.substr(i, c.size))) {
          replace_chars(*text_for, 1, out);
          modified = true;
        } else {
          out.push_back({c.value, 0});
        }
        i += c.size;
      }
    }
    if (modified) text.transform(out);
    return {};
  };
}

}  // namespace nibble
