#include "nibble/generation/stop_strings.h"

#include <algorithm>
#include <utility>

namespace nibble {
namespace {

// The start of the longest end of `text` that is a beginning of `stop`, but not all of it.
size_t begin_of_partial_match(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.ends_with(stop.substr(0, length))) return text.size() - length;
  }
  return text.size();
}

// Back to the start of the character that `position` is in: a stop string need not be valid UTF-8.
size_t character_start(std::string_view text, size_t position) {
  while (position > 0 && position < text.size() &&
         (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80) {
    --position;
  }
  return position;
}

}  // namespace

StopStringFilter::StopStringFilter(std::vector<std::string> stop_strings)
    : stop_strings_(std::move(stop_strings)) {}

std::string StopStringFilter::push(std::string_view piece) {
  if (stopped_) return {};
  held_ += piece;
  size_t begin = held_.size();
  size_t end = std::string::npos;
  for (const std::string& stop : stop_strings_) {
    if (stop.empty()) continue;
    const size_t found = held_.find(stop);
    if (found == std::string::npos) continue;
    // The one that is complete first; of those the longest.
    if (std::pair(found + stop.size(), found) < std::pair(end, begin)) {
      begin = found;
      end = found + stop.size();
    }
  }
  if (end != std::string::npos) {
    stopped_ = true;
    held_.resize(character_start(held_, begin));
    return std::exchange(held_, {});
  }
  for (const std::string& stop : stop_strings_) {
    if (!stop.empty()) begin = std::min(begin, begin_of_partial_match(held_, stop));
  }
  begin = character_start(held_, begin);
  std::string shown = held_.substr(0, begin);
  held_.erase(0, begin);
  return shown;
}

std::string StopStringFilter::finish() { return std::exchange(held_, {}); }

}  // namespace nibble
