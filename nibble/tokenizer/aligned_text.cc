#include "nibble/tokenizer/aligned_text.h"

#include <algorithm>

#include "nibble/tokenizer/byte_level.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {

AlignedText::Origin AlignedText::origin(size_t i) const {
  if (!origins_.empty()) return origins_[i];
  size_t begin = i;
  while (begin > 0 && is_utf8_continuation(text_[begin])) --begin;
  const size_t end = begin + decode_utf8(text_, begin).size;
  return {static_cast<uint32_t>(begin), static_cast<uint32_t>(end)};
}

void AlignedText::materialize() {
  if (!origins_.empty()) return;
  std::vector<Origin> origins(text_.size());
  for (size_t i = 0; i < text_.size();) {
    const size_t end = i + decode_utf8(text_, i).size;
    const Origin origin{static_cast<uint32_t>(i), static_cast<uint32_t>(end)};
    for (; i < end; ++i) origins[i] = origin;
  }
  origins_ = std::move(origins);
}

std::pair<size_t, size_t> AlignedText::input_range(size_t begin, size_t end) const {
  // A range that is empty or outside is not converted: so does the original.
  if (begin == end) return {input_begin_ + begin, input_begin_ + end};
  if (begin > end || end > text_.size()) return {begin, end};
  return {input_begin_ + origin(begin).begin, input_begin_ + origin(end - 1).end};
}

AlignedText AlignedText::slice(size_t begin, size_t end) const {
  AlignedText part(text_.substr(begin, end - begin), track_);
  if (begin == end) return part;
  if (origins_.empty()) {
    part.input_begin_ = input_begin_ + begin;
    return part;
  }
  const uint32_t shift = origins_[begin].begin;
  part.input_begin_ = input_begin_ + shift;
  part.origins_.reserve(end - begin);
  for (size_t i = begin; i < end; ++i) {
    part.origins_.push_back({origins_[i].begin - std::min(shift, origins_[i].begin),
                             origins_[i].end - std::min(shift, origins_[i].end)});
  }
  return part;
}

void AlignedText::transform(std::span<const CharChange> chars) {
  std::string text;
  text.reserve(text_.size() + text_.size() / 8);
  std::vector<Origin> origins;
  if (track_) {
    materialize();
    size_t old = 0;  // bytes of the old text that have found their successor
    const auto skip_char = [&] {
      if (old < text_.size()) old += decode_utf8(text_, old).size;
    };
    for (const CharChange& next : chars) {
      Origin origin;
      if (next.change > 0) {
        if (old > 0) origin = origins_[old - 1];
      } else {
        if (!origins_.empty()) origin = origins_[std::min(old, origins_.size() - 1)];
        for (int i = 0; i <= -next.change; ++i) skip_char();
      }
      origins.insert(origins.end(), utf8_size(next.c), origin);
    }
  }
  for (const CharChange& next : chars) append_utf8(text, next.c);
  text_ = std::move(text);
  origins_ = std::move(origins);
}

void AlignedText::prepend(std::string_view prefix) {
  if (text_.empty() || prefix.empty()) return;
  if (track_) {
    materialize();
    origins_.insert(origins_.begin(), prefix.size(), origins_.front());
  }
  text_.insert(0, prefix);
}

void AlignedText::erase_front(size_t bytes) {
  if (bytes == 0) return;
  if (track_) {
    materialize();
    origins_.erase(origins_.begin(), origins_.begin() + static_cast<std::ptrdiff_t>(bytes));
  }
  text_.erase(0, bytes);
}

void AlignedText::erase_back(size_t bytes) {
  if (!origins_.empty()) origins_.resize(origins_.size() - bytes);
  text_.resize(text_.size() - bytes);
}

Status AlignedText::replace(std::span<const Span> spans, std::string_view content) {
  size_t size = 0;
  bool any = false;
  for (const Span& span : spans) {
    size += span.matched ? content.size() : span.end - span.begin;
    any = any || span.matched;
  }
  if (!any) return {};
  if (size > kMaxTextBytes) {
    return fail(ErrorCode::kInvalidArgument,
                "the normalizer makes {} bytes out of {}; at most {} are allowed", size, text_.size(),
                kMaxTextBytes)
        .with_fix("Encode the text in smaller parts.");
  }
  std::string text;
  text.reserve(size);
  std::vector<Origin> origins;
  if (track_) {
    materialize();
    origins.reserve(size);
  }
  for (const Span& span : spans) {
    if (!span.matched) {
      text.append(text_, span.begin, span.end - span.begin);
      if (track_) {
        origins.insert(origins.end(), origins_.begin() + static_cast<std::ptrdiff_t>(span.begin),
                       origins_.begin() + static_cast<std::ptrdiff_t>(span.end));
      }
      continue;
    }
    text += content;
    // The new characters belong to the last one that was replaced.
    if (track_)
      origins.insert(origins.end(), content.size(), span.end > 0 ? origins_[span.end - 1] : Origin{});
  }
  text_ = std::move(text);
  origins_ = std::move(origins);
  return {};
}

void AlignedText::to_byte_level() {
  std::string text;
  text.reserve(text_.size() + text_.size() / 2);
  std::vector<Origin> origins;
  if (track_) {
    materialize();
    origins.reserve(text_.size() + text_.size() / 2);
    for (size_t i = 0; i < text_.size(); ++i) {
      const std::string_view mapped = byte_level_char(static_cast<uint8_t>(text_[i]));
      origins.insert(origins.end(), mapped.size(), origins_[i]);
    }
  }
  for (const char byte : text_) text += byte_level_char(static_cast<uint8_t>(byte));
  text_ = std::move(text);
  origins_ = std::move(origins);
}

}  // namespace nibble
