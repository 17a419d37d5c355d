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
  struct Candidate {
    float logit;
    int32_t id;
    double weight;  // exp((logit - largest logit) / temperature)
  };

  Status check(std::span<const float> logits) const;
  void process(std::span<float> logits) const;
  void keep_top_k(std::span<const float> logits);
  void keep_top_p();
  void keep_min_p();
  int32_t draw();

  const GenerationConfig config_;
  std::mt19937_64 random_;
  size_t num_sampled_ = 0;
  std::vector<uint32_t> completion_counts_;  // [vocab_size]
  std::vector<bool> seen_;                   // [vocab_size]: prompt and completion
  std::vector<float> largest_;               // heap of the top_k largest logits
  std::vector<Candidate> candidates_;        // what may be drawn, by id
  std::vector<Candidate> scratch_;
};

}  // namespace nibble

#endif  // NIBBLE_GENERATION_SAMPLER_H_
