#ifndef NIBBLE_TOKENIZER_NORMALIZER_STEPS_H_
#define NIBBLE_TOKENIZER_NORMALIZER_STEPS_H_

// What the steps of a normalizer are made of, and those that have files of their own.

#include <functional>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/tokenizer/aligned_text.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {

using NormalizerStep = std::function<Status(AlignedText&)>;

// BERT's: no control characters, spaces around Chinese characters, no accents, lower case.
Expected<NormalizerStep> parse_bert_normalizer(const Json& json);
// SentencePiece's table of characters, as it stands in every tokenizer.model.
Expected<NormalizerStep> parse_precompiled(const Json& json);

// Keeps or changes each character: `map` appends what takes its place.
template <class Map>
void map_characters(AlignedText& text, const Map& map) {
  std::vector<CharChange> out;
  out.reserve(text.text().size());
  for (size_t i = 0; i < text.text().size();) {
    const CodePoint c = decode_utf8(text.text(), i);
    i += c.size;
    map(c.value, out);
  }
  text.transform(out);
}

// Removes the characters that `drop` names.
template <class Drop>
Status remove_characters(AlignedText& text, const Drop& drop) {
  std::vector<Span> spans;
  size_t kept_from = 0;
  for (size_t i = 0; i < text.text().size();) {
    const CodePoint c = decode_utf8(text.text(), i);
    if (drop(c.value)) {
      if (kept_from < i) spans.push_back({kept_from, i, false});
      spans.push_back({i, i + c.size, true});
      kept_from = i + c.size;
    }
    i += c.size;
  }
  if (kept_from < text.text().size()) spans.push_back({kept_from, text.text().size(), false});
  return text.replace(spans, "");
}

void lowercase(AlignedText& text);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_NORMALIZER_STEPS_H_
