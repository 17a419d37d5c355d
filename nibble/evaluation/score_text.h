#ifndef NIBBLE_EVALUATION_SCORE_TEXT_H_
#define NIBBLE_EVALUATION_SCORE_TEXT_H_

// Walks a model through a text, beside a reference model where there is one.

#include <filesystem>
#include <string>

#include "nibble/base/thread_pool.h"
#include "nibble/evaluation/text_windows.h"
#include "nibble/evaluation/token_scores.h"
#include "nibble/models/causal_lm.h"

namespace nibble {

// A model that others are compared with. With a folder, what its head reads at every scored position is kept
// there (float32 [positions, head_size] of each window, a few kB per token) and the blocks are never run
// again for that text. That is exact: only the head is computed anew, where keeping the likeliest tokens of
// every position would be larger and lose the tail.
struct ReferenceModel {
  const CausalLM& model;
  std::filesystem::path folder = {};  // empty: nothing is kept. Made if it is not there.
};

// Position by position: windows one after the other, tokens in pieces of 512, logits in pieces that stay
// small. The same numbers for any number of threads. reference may be null. kInvalidArgument where the two
// vocabularies differ; kDataLoss where logits are NaN (the window is named); kCancelled after Ctrl-C: what
// the reference's folder holds stays.
// what: for the line of progress.
Expected<TokenScores> score_text(const CausalLM& model, const ReferenceModel* reference,
                                 const TextWindows& text, const std::string& what, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_SCORE_TEXT_H_
