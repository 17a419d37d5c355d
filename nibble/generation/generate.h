#ifndef NIBBLE_GENERATION_GENERATE_H_
#define NIBBLE_GENERATION_GENERATE_H_

// generate(): prompt tokens in, completion tokens out, with the settings of GenerationConfig.

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "nibble/config/generation_config.h"
#include "nibble/models/causal_lm.h"
#include "nibble/nn/kv_cache.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble {

enum class FinishReason { kStop, kStopString, kLength, kContextFull, kCancelled };

std::string_view finish_reason_name(FinishReason reason);  // "stop", "length"...

struct GenerateOptions {
  size_t max_context = 0;      // --ctx-size; 0: what the model allows
  size_t prefill_chunk = 512;  // tokens per forward pass while reading the prompt
  bool ignore_eos = false;     // for benchmarks
  // Prompt lookup: up to so many tokens are guessed from what stands in the sequence already and checked in
  // one forward pass. Changes the speed alone: tokens are those of plain decoding, sampled ones as well.
  // kInvalidArgument for a model whose tokens see each other (LLM.int8 in float32).
  size_t lookup_tokens = 0;
  // The tokens that `cache` holds already, all of them. They count for repetition_penalty, and a model
  // with a cache_reset_length() cannot grow past it without them.
  std::span<const int32_t> cached_tokens = {};
  // Called for each new token, with the text that can be shown now (complete characters, and never
  // a part of what may become a stop string). Returning false stops.
  std::function<bool(int32_t token, std::string_view text)> on_token;
};

struct GenerateResult {
  std::vector<int32_t> tokens;  // of the completion, the end token included
  std::string text;             // without special tokens and without the stop string
  FinishReason finish_reason = FinishReason::kLength;
  size_t prompt_tokens = 0;
  double prompt_seconds = 0;      // until the first token was chosen
  double generation_seconds = 0;  // from then on
  size_t drafted_tokens = 0;      // guessed by prompt lookup,
  size_t accepted_tokens = 0;     // and these were right
};

// `cache` holds what came before (empty for a new sequence), and prompt and completion afterwards, but
// for the last token: it was chosen and never run. To go on, begin the next prompt with it.
// End tokens are those of `config`, of the model's config where it names none, or of the tokenizer.
// kInvalidArgument for an empty prompt or settings out of range; kOutOfMemory when the prompt does
// not fit the context; the message says the size to ask for.
Expected<GenerateResult> generate(const CausalLM& model, const Tokenizer& tokenizer,
                                  std::span<const int32_t> prompt, const GenerationConfig& config,
                                  const GenerateOptions& options, KvCache& cache, ExecutionContext& context);

}  // namespace nibble

#endif  // NIBBLE_GENERATION_GENERATE_H_
