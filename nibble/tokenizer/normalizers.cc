#include "nibble/tokenizer/normalizers.h"

#include <algorithm>
#include <array>
#include <string>

#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/normalizer_steps.h"
#include "nibble/tokenizer/regex.h"
#include "nibble/tokenizer/unicode.h"
#include "nibble/tokenizer/unicode_normalization.h"

namespace nibble {
namespace {

// Below this code point every text is in form C already; form D and the compatible forms change
// characters from U+00A0 on.
constexpr unsigned char kFirstLeadOfC = 0xCC;  // U+0300

// What a step writes again and again: longer ones would let a small file make huge texts.
constexpr size_t kMaxContentBytes = 4096;

Expected<std::string> content_field(const Json& json, std::string_view name) {
  NIBBLE_TRY(std::string content, string_field(json, name));
  if (content.size() > kMaxContentBytes) {
    return fail(ErrorCode::kUnsupported, "\"{}\" has {} bytes; at most {} are supported", name,
                content.size(), kMaxContentBytes);
  }
  return content;
}

template <bool kCompatible, bool kCompose>
Expected<NormalizerStep> parse_unicode_form(const Json&) {
  return [](AlignedText& text) -> Status {
    const bool stable = std::all_of(text.text().begin(), text.text().end(), [](char c) {
      constexpr unsigned char kFirstLead = !kCompatible && kCompose ? kFirstLeadOfC : 0xC2;
      return static_cast<unsigned char>(c) < kFirstLead;
    });
    if (!stable)
      text.transform(normalize_unicode(text.text(), {.compatible = kCompatible, .compose = kCompose}));
    return {};
  };
}

Expected<NormalizerStep> parse_lowercase(const Json&) {
  return [](AlignedText& text) -> Status {
    lowercase(text);
    return {};
  };
}

Expected<NormalizerStep> parse_strip_accents(const Json&) {
  return [](AlignedText& text) -> Status { return remove_characters(text, is_combining_mark); };
}

// SentencePiece's cleaning: control characters go, odd spaces become spaces.
Expected<NormalizerStep> parse_nmt(const Json&) {
  return [](AlignedText& text) -> Status {
    NIBBLE_RETURN_IF_ERROR(remove_characters(text, [](char32_t c) {
      return (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
             c == 0x9F;
    }));
    map_characters(text, [](char32_t c, std::vector<CharChange>& out) {
      const bool space = c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                         (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                         c == 0xFEFF || c == 0xFFFD;
      out.push_back({space ? U' ' : c, 0});
    });
    return {};
  };
}

Expected<NormalizerStep> parse_strip_normalizer(const Json& json) {
  NIBBLE_TRY(const bool left, bool_field(json, "strip_left"));
  NIBBLE_TRY(const bool right, bool_field(json, "strip_right"));
  return [left, right](AlignedText& text) -> Status {
    size_t begin = 0;
    while (left && begin < text.text().size() && is_whitespace(decode_utf8(text.text(), begin).value)) {
      begin += decode_utf8(text.text(), begin).size;
    }
    text.erase_front(begin);
    size_t end = text.text().size();
    while (right && end > 0) {
      const CodePoint c = decode_utf8_before(text.text(), end);
      if (!is_whitespace(c.value)) break;
      end -= c.size;
    }
    text.erase_back(text.text().size() - end);
    return {};
  };
}

Expected<NormalizerStep> parse_replace_normalizer(const Json& json) {
  const Json* field = find_field(json, "pattern");
  NIBBLE_TRY(const Pattern pattern, Pattern::parse(field ? *field : Json()));
  NIBBLE_TRY(const std::string content, content_field(json, "content"));
  return [pattern, content](AlignedText& text) -> Status {
    std::vector<Span> spans;
    NIBBLE_RETURN_IF_ERROR(pattern.find_all(text.text(), spans));
    return text.replace(spans, content);
  };
}

Expected<NormalizerStep> parse_prepend(const Json& json) {
  NIBBLE_TRY(const std::string prefix, content_field(json, "prepend"));
  return [prefix](AlignedText& text) -> Status {
    text.prepend(prefix);
    return {};
  };
}

Expected<NormalizerStep> parse_byte_level_normalizer(const Json&) {
  return [](AlignedText& text) -> Status {
    text.to_byte_level();
    return {};
  };
}

constexpr std::array<ComponentParser<NormalizerStep>, 13> kNormalizers = {{
    {"NFC", parse_unicode_form<false, true>},
    {"NFD", parse_unicode_form<false, false>},
    {"NFKC", parse_unicode_form<true, true>},
    {"NFKD", parse_unicode_form<true, false>},
    {"Lowercase", parse_lowercase},
    {"Strip", parse_strip_normalizer},
    {"StripAccents", parse_strip_accents},
    {"Replace", parse_replace_normalizer},
    {"Prepend", parse_prepend},
    {"Nmt", parse_nmt},
    {"ByteLevel", parse_byte_level_normalizer},
    {"BertNormalizer", parse_bert_normalizer},
    {"Precompiled", parse_precompiled},
}};

}  // namespace

void lowercase(AlignedText& text) {
  map_characters(text, [](char32_t c, std::vector<CharChange>& out) {
    const std::u32string lower = to_lowercase(c);
    for (size_t i = 0; i < lower.size(); ++i) out.push_back({lower[i], i > 0 ? 1 : 0});
  });
}

Expected<Normalizer> Normalizer::parse(const Json& json) {
  Normalizer normalizer;
  if (json.is_null()) return normalizer;
  NIBBLE_RETURN_IF_ERROR(for_each_component(json, "normalizers", [&](const Json& one) -> Status {
    NIBBLE_TRY(NormalizerStep step, parse_component<NormalizerStep>("normalizer", one, kNormalizers));
    normalizer.steps_.push_back(std::move(step));
    return {};
  }));
  return normalizer;
}

Status Normalizer::apply(AlignedText& text) const {
  for (const auto& step : steps_) NIBBLE_RETURN_IF_ERROR(step(text));
  return {};
}

}  // namespace nibble
