#ifndef NIBBLE_TOKENIZER_ALIGNED_TEXT_H_
#define NIBBLE_TOKENIZER_ALIGNED_TEXT_H_

// A piece of text that remembers which bytes of the input each of its bytes came from, through all
// that normalizers and pre-tokenizers do to it.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nibble/base/error.h"

namespace nibble {

// Longer inputs, and normalizers that make longer texts, are refused.
inline constexpr size_t kMaxTextBytes = size_t{1} << 30;

// A part [begin, end) of a text, in bytes; `matched` if a pattern found it.
struct Span {
  size_t begin = 0;
  size_t end = 0;
  bool matched = false;
};

// One character of a text that replaces another.
//   change  1: a new character, which belongs to the same input as the one before it
//   change  0: takes the place of the next old character
//   change -n: takes its place, and that of the n old characters behind it
struct CharChange {
  char32_t c = 0;
  int change = 0;
};

class AlignedText {
 public:
  AlignedText() = default;
  // track: whether input_range() will be asked for. Without it all changes are cheaper.
  AlignedText(std::string text, bool track) : text_(std::move(text)), track_(track) {}

  const std::string& text() const { return text_; }
  bool empty() const { return text_.empty(); }
  // Where this piece begins in the input, in bytes.
  size_t input_begin() const { return input_begin_; }
  // The bytes of the input that [begin, end) of the text came from.
  std::pair<size_t, size_t> input_range(size_t begin, size_t end) const;

  // begin and end are at character boundaries.
  AlignedText slice(size_t begin, size_t end) const;

  // Replaces the whole text.
  void transform(std::span<const CharChange> chars);
  void prepend(std::string_view prefix);
  void erase_front(size_t bytes);
  void erase_back(size_t bytes);
  // Puts `content` in the place of every matched span; the spans cover the text.
  Status replace(std::span<const Span> spans, std::string_view content);
  // Each byte becomes the printable character that GPT-2 writes for it (byte_level.h).
  void to_byte_level();

 private:
  // Relative to input_begin_.
  struct Origin {
    uint32_t begin = 0;
    uint32_t end = 0;
  };

  Origin origin(size_t i) const;
  void materialize();

  std::string text_;
  std::vector<Origin> origins_;  // one per byte of text_; empty: the text is the input, unchanged
  size_t input_begin_ = 0;
  bool track_ = false;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_ALIGNED_TEXT_H_
