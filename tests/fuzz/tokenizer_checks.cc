#include "tests/fuzz/tokenizer_checks.h"

#include "nibble/checkpoint/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace nibble::fuzz {
namespace {

std::string decode_as_stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = decoder.push(id);
    NIBBLE_CHECK(is_utf8(piece));
    text += piece;
  }
  return text + decoder.finish();
}

}  // namespace

std::vector<int32_t> check_text(const Tokenizer& tokenizer, std::string_view text) {
  const auto encoding = tokenizer.encode(text, {.with_offsets = true});
  if (!accepted(encoding)) return {};
  const auto bare = tokenizer.encode(text);
  NIBBLE_CHECK(bare.has_value() && bare->ids == encoding->ids);
  NIBBLE_CHECK(encoding->offsets.size() == encoding->ids.size());
  for (const auto& [begin, end] : encoding->offsets) NIBBLE_CHECK(begin <= end && end <= text.size());
  for (const int32_t id : encoding->ids) {
    NIBBLE_CHECK(id >= 0 && static_cast<size_t>(id) < tokenizer.vocab_size());
  }
  for (const bool skip_special : {false, true}) {
    const std::string decoded = tokenizer.decode(encoding->ids, skip_special);
    NIBBLE_CHECK(is_utf8(decoded));
    NIBBLE_CHECK(decode_as_stream(tokenizer, encoding->ids, skip_special) == decoded);
  }
  return encoding->ids;
}

}  // namespace nibble::fuzz
