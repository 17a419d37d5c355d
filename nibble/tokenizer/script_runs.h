#ifndef NIBBLE_TOKENIZER_SCRIPT_RUNS_H_
#define NIBBLE_TOKENIZER_SCRIPT_RUNS_H_

#include "nibble/tokenizer/regex.h"

namespace nibble {

// Matches text up to the place where its script changes. Hiragana, Katakana and Han count as one; a
// space, and what is not assigned, belong to what stands before them.
Expected<Regex> script_runs();

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_SCRIPT_RUNS_H_
