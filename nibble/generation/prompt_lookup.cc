#include "nibble/generation/prompt_lookup.h"

namespace nibble {
namespace {

constexpr size_t kLongestMatch = 3;

// How many tokens (kLongestMatch at most) are the same up to `end` and up to the end of the sequence.
size_t match_length(std::span<const int32_t> sequence, size_t end) {
  size_t n = 0;
  while (n < kLongestMatch && n < end && sequence[end - 1 - n] == sequence[sequence.size() - 1 - n]) ++n;
  return n;
}

}  // namespace

void look_up_draft(std::span<const int32_t> sequence, size_t count, std::vector<int32_t>& draft) {
  draft.clear();
  if (sequence.empty()) return;
  size_t longest = 0;
  size_t next = 0;  // what followed the longest match
  for (size_t end = sequence.size() - 1; end > 0 && longest < kLongestMatch; --end) {
    const size_t length = match_length(sequence, end);
    if (length <= longest) continue;
    longest = length;
    next = end;
  }
  if (longest == 0) return;
  for (size_t i = 0; i < count; ++i, ++next) {
    draft.push_back(next < sequence.size() ? sequence[next] : draft[next - sequence.size()]);
  }
}

}  // namespace nibble
