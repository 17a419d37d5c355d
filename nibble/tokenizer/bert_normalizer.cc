#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/normalizer_steps.h"
#include "nibble/tokenizer/unicode_normalization.h"

namespace nibble {
namespace {

bool is_chinese(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

Status clean_text(AlignedText& text) {
  NIBBLE_RETURN_IF_ERROR(remove_characters(text, [](char32_t c) {
    if (c == '\t' || c == '\n' || c == '\r') return false;
    return c == 0xFFFD || is_other(c);
  }));
  map_characters(text, [](char32_t c, std::vector<CharChange>& out) {
    out.push_back({is_whitespace(c) ? U' ' : c, 0});
  });
  return {};
}

void space_chinese(AlignedText& text) {
  map_characters(text, [](char32_t c, std::vector<CharChange>& out) {
    if (is_chinese(c)) {
      out.insert(out.end(), {{U' ', 0}, {c, 1}, {U' ', 1}});
    } else {
      out.push_back({c, 0});
    }
  });
}

Status strip_accents(AlignedText& text) {
  text.transform(normalize_unicode(text.text(), {.compatible = false, .compose = false}));
  return remove_characters(text, is_nonspacing_mark);
}

}  // namespace

Expected<NormalizerStep> parse_bert_normalizer(const Json& json) {
  NIBBLE_TRY(const bool clean, bool_field(json, "clean_text", true));
  NIBBLE_TRY(const bool chinese, bool_field(json, "handle_chinese_chars", true));
  NIBBLE_TRY(const bool lower, bool_field(json, "lowercase", true));
  NIBBLE_TRY(const bool strip, bool_field(json, "strip_accents", lower));
  return [=](AlignedText& text) -> Status {
    if (clean) NIBBLE_RETURN_IF_ERROR(clean_text(text));
    if (chinese) space_chinese(text);
    if (strip) NIBBLE_RETURN_IF_ERROR(strip_accents(text));
    if (lower) lowercase(text);
    return {};
  };
}

}  // namespace nibble
