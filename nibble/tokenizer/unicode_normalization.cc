#include "nibble/tokenizer/unicode_normalization.h"

#include <algorithm>
#include <array>
#include <optional>

#include <utf8proc.h>

#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

struct Decomposed {
  CharChange change;
  int combining_class = 0;
};

int combining_class(char32_t c) {
  return c < 0x300 ? 0 : utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class;
}

// The single character that canonically equals the two, if there is one.
std::optional<char32_t> compose(char32_t first, char32_t second) {
  if (second < 0x300) return std::nullopt;  // nothing below combines with what stands before it
  std::array<utf8proc_int32_t, 3> pair{static_cast<utf8proc_int32_t>(first),
                                       static_cast<utf8proc_int32_t>(second), 0};
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  if (utf8proc_normalize_utf32(pair.data(), 2, options) != 1) return std::nullopt;
  return static_cast<char32_t>(pair[0]);
}

// Canonical order: marks between two starters are sorted by class.
std::vector<Decomposed> decompose(std::string_view text, bool compatible) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<Decomposed> out;
  out.reserve(text.size());
  size_t first_mark = 0;  // of the run of marks at the end of `out`
  const auto sort_marks = [&] {
    std::stable_sort(
        out.begin() + static_cast<std::ptrdiff_t>(first_mark), out.end(),
        [](const Decomposed& a, const Decomposed& b) { return a.combining_class < b.combining_class; });
  };
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode_utf8(text, i);
    i += c.size;
    std::array<utf8proc_int32_t, 32> parts{};  // the longest decomposition has 18
    utf8proc_ssize_t count = 1;
    parts[0] = static_cast<utf8proc_int32_t>(c.value);
    if (c.value >= 0x80) {
      count = utf8proc_decompose_char(parts[0], parts.data(), parts.size(), options, nullptr);
      if (count < 1 || count > static_cast<utf8proc_ssize_t>(parts.size())) {
        parts[0] = static_cast<utf8proc_int32_t>(c.value);
        count = 1;
      }
    }
    for (utf8proc_ssize_t k = 0; k < count; ++k) {
      const auto part = static_cast<char32_t>(parts[static_cast<size_t>(k)]);
      const int part_class = combining_class(part);
      if (part_class == 0) {
        if (out.size() - first_mark > 1) sort_marks();
        first_mark = out.size() + 1;
      }
      out.push_back({{part, k == 0 ? 0 : 1}, part_class});
    }
  }
  if (first_mark < out.size()) sort_marks();
  return out;
}

}  // namespace

std::vector<CharChange> normalize_unicode(std::string_view text, NormalizationForm form) {
  const std::vector<Decomposed> parts = decompose(text, form.compatible);
  std::vector<CharChange> out;
  out.reserve(parts.size());
  if (!form.compose) {
    for (const Decomposed& part : parts) out.push_back(part.change);
    return out;
  }
  // The canonical composition algorithm of UAX #15. A starter stays at out[starter] while marks
  // behind it may still join it.
  std::optional<size_t> starter;
  int last_class = 0;  // of the last mark that did not join; 0: none
  for (const Decomposed& part : parts) {
    if (starter && (last_class == 0 || last_class < part.combining_class)) {
      if (const auto joined = compose(out[*starter].c, part.change.c)) {
        // Together they stand for the characters of both.
        out[*starter] = {*joined, out[*starter].change + part.change.change - 1};
        continue;
      }
    }
    if (part.combining_class == 0) {
      starter = out.size();
      last_class = 0;
    } else if (starter) {
      last_class = part.combining_class;
    }
    out.push_back(part.change);
  }
  return out;
}

}  // namespace nibble
