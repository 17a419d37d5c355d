#ifndef NIBBLE_GENERATION_PROMPT_LOOKUP_H_
#define NIBBLE_GENERATION_PROMPT_LOOKUP_H_

// Drafts for speculative decoding (arXiv:2211.17192) that need no second model: text often repeats what
// stands in it already ("prompt lookup decoding").

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace nibble {

// Writes up to `count` tokens that may follow `sequence` to `draft`: those behind the latest earlier place
// where its last three tokens stand, or else its last two, or its last one. Past its end the sequence is
// taken to go on with the draft, so that a loop is followed round. Empty where nothing is found.
void look_up_draft(std::span<const int32_t> sequence, size_t count, std::vector<int32_t>& draft);

}  // namespace nibble

#endif  // NIBBLE_GENERATION_PROMPT_LOOKUP_H_
