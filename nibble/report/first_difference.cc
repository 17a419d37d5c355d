#include "nibble/report/first_difference.h"

#include <vector>

#include "nibble/report/text.h"

namespace nibble::report {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

size_t character_size(std::string_view text) {
  size_t size = 1;
  while (size < text.size() && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) ++size;
  return size;
}

bool is_wide(std::string_view character) { return character.size() >= 3 && display_columns(character) == 2; }

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  size_t begin = 0;  // of the word that has not ended
  const auto end_word = [&](size_t end) {
    if (end > begin) words.push_back(text.substr(begin, end - begin));
  };
  for (size_t at = 0; at < text.size();) {
    const size_t size = character_size(text.substr(at));
    const bool space = is_space(text[at]);
    if (space || is_wide(text.substr(at, size))) {
      end_word(at);
      begin = at;
      if (!space) end_word(at + size);
      begin = at + size;
    }
    at += size;
  }
  end_word(text.size());
  return words;
}

}  // namespace

FirstDifference first_difference(std::string_view original, std::string_view text) {
  const auto expected = words_of(original), words = words_of(text);
  size_t same = 0;
  while (same < expected.size() && same < words.size() && expected[same] == words[same]) ++same;
  if (same == words.size()) {
    return {.same = text, .word = same + 1, .identical = same == expected.size()};
  }
  const auto begin = static_cast<size_t>(words[same].data() - text.data());
  const size_t end = begin + words[same].size();
  return {
      .same = text.substr(0, begin), .different = words[same], .rest = text.substr(end), .word = same + 1};
}

}  // namespace nibble::report
