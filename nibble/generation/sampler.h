#ifndef NIBBLE_GENERATION_SAMPLER_H_
#define NIBBLE_GENERATION_SAMPLER_H_

// From logits to the next token: the logits processors and warpers of Transformers, in its order.

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "nibble/config/generation_config.h"

namespace nibble {

// One sequence's state; one thread at a time. The same seed gives the same tokens on every machine
// of one instruction set.
class Sampler {
 public:
  // prompt counts for repetition_penalty (as in Transformers), not for the presence and frequency
  // penalties (as in OpenAI's API).
  Sampler(const GenerationConfig& config, std::span<const int32_t> prompt, size_t vocab_size);

  // logits: [vocab_size]; changed. Fails on NaN: a damaged model must not babble.
  Expected<int32_t> sample(std::span<float> logits);

 private:
  const GenerationConfig config_;
  std::mt19937_64 random_;
  std::vector<uint32_t> completion_counts_;  // [vocab_size]
  std::vector<bool> seen_;                   // [vocab_size]: prompt and completion
  std::vector<std::pair<float, int32_t>> candidates_;
};

}  // namespace nibble

#endif  // NIBBLE_GENERATION_SAMPLER_H_
