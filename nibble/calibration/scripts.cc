#include "nibble/calibration/scripts.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

constexpr std::array<std::string_view, kNumScripts> kNames = {
    "Latin",   "Greek",    "Cyrillic", "Armenian", "Hebrew",  "Arabic",   "Devanagari",
    "Bengali", "Gurmukhi", "Gujarati", "Tamil",    "Telugu",  "Kannada",  "Malayalam",
    "Sinhala", "Thai",     "Lao",      "Tibetan",  "Burmese", "Georgian", "Ethiopic",
    "Khmer",   "Hangul",   "Hiragana", "Katakana", "Han"};

struct Range {
  char32_t first, last;
  std::string_view script;
};

// The blocks of Unicode 15 (Blocks.txt) that hold letters of these scripts, sorted. Signs that every
// script uses stay out.
constexpr Range kRanges[] = {
    {U'A', U'Z', "Latin"},        {U'a', U'z', "Latin"},        {0xC0, 0xD6, "Latin"},
    {0xD8, 0xF6, "Latin"},        {0xF8, 0x24F, "Latin"},       {0x370, 0x3FF, "Greek"},
    {0x400, 0x52F, "Cyrillic"},   {0x531, 0x588, "Armenian"},   {0x591, 0x5F4, "Hebrew"},
    {0x620, 0x65F, "Arabic"},     {0x66E, 0x6D5, "Arabic"},     {0x750, 0x77F, "Arabic"},
    {0x8A0, 0x8FF, "Arabic"},     {0x900, 0x963, "Devanagari"}, {0x980, 0x9FF, "Bengali"},
    {0xA00, 0xA7F, "Gurmukhi"},   {0xA80, 0xAFF, "Gujarati"},   {0xB80, 0xBFF, "Tamil"},
    {0xC00, 0xC7F, "Telugu"},     {0xC80, 0xCFF, "Kannada"},    {0xD00, 0xD7F, "Malayalam"},
    {0xD80, 0xDFF, "Sinhala"},    {0xE01, 0xE4E, "Thai"},       {0xE80, 0xEFF, "Lao"},
    {0xF40, 0xFBC, "Tibetan"},    {0x1000, 0x109F, "Burmese"},  {0x10A0, 0x10FF, "Georgian"},
    {0x1100, 0x11FF, "Hangul"},   {0x1200, 0x139F, "Ethiopic"}, {0x1780, 0x17D3, "Khmer"},
    {0x1C80, 0x1C8F, "Cyrillic"}, {0x1C90, 0x1CBF, "Georgian"}, {0x1E00, 0x1EFF, "Latin"},
    {0x1F00, 0x1FFF, "Greek"},    {0x3041, 0x309F, "Hiragana"}, {0x30A1, 0x30FA, "Katakana"},
    {0x30FC, 0x30FF, "Katakana"}, {0x3131, 0x318E, "Hangul"},   {0x31F0, 0x31FF, "Katakana"},
    {0x3400, 0x4DBF, "Han"},      {0x4E00, 0x9FFF, "Han"},      {0xA640, 0xA69F, "Cyrillic"},
    {0xAC00, 0xD7A3, "Hangul"},   {0xF900, 0xFAFF, "Han"},      {0xFB50, 0xFDFF, "Arabic"},
    {0xFE70, 0xFEFC, "Arabic"},   {0xFF66, 0xFF9D, "Katakana"}, {0x20000, 0x323AF, "Han"},
};

constexpr size_t index_of(std::string_view script) {
  return static_cast<size_t>(std::find(kNames.begin(), kNames.end(), script) - kNames.begin());
}

constexpr double kMuch = 0.01;     // of the letters of a text: it is written in this script, too
constexpr double kLittle = 0.001;  // of the letters of the data: it has as good as none

double share(const LetterCounts& letters, size_t script) {
  const size_t total = letters.total();
  return total == 0 ? 0.0 : static_cast<double>(letters.counts[script]) / static_cast<double>(total);
}

}  // namespace

void LetterCounts::add(std::string_view text) {
  const Range* last = kRanges;  // neighbours are mostly of one range
  size_t script = index_of(last->script);
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_utf8(text, pos);
    pos += c.size;
    if (c.value < last->first || c.value > last->last) {
      const Range* const found = std::partition_point(
          std::begin(kRanges), std::end(kRanges), [&](const Range& range) { return range.last < c.value; });
      if (found == std::end(kRanges) || c.value < found->first) continue;
      last = found;
      script = index_of(last->script);
    }
    ++counts[script];
  }
}

size_t LetterCounts::total() const { return std::accumulate(counts.begin(), counts.end(), size_t{0}); }

std::optional<std::string> script_warning(const LetterCounts& data, const LetterCounts& user,
                                          std::string_view name) {
  std::vector<std::string> missing;
  for (size_t s = 0; s < kNumScripts; ++s) {
    if (share(user, s) >= kMuch && share(data, s) < kLittle) {
      missing.push_back(fmt::format("{} ({:.0f} % of its letters)", kNames[s], 100.0 * share(user, s)));
    }
  }
  if (missing.empty()) return std::nullopt;
  return fmt::format("{}: {} does not occur in the samples that were drawn: take more of them", name,
                     fmt::join(missing, ", "));
}

}  // namespace nibble
