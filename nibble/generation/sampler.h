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

  static Failure damage(std::span<const float> logits);
  bool process(std::span<float> logits) const;  // whether a logit was changed
  int32_t draw_from(std::span<const float> logits, float largest);
  // candidates_ become the logits that reach a threshold, and their weights.
  void keep_from(std::span<const float> logits, float threshold);
  void keep_top_k(std::span<const float> logits);
  void weigh(float largest);
  void keep_likely(std::span<const float> logits, float largest, double total);
  void keep_top_p(double total);
  void keep_min_p();
  int32_t draw();
  int32_t draw_from_all(double total);
  double uniform();

  const GenerationConfig config_;
  std::mt19937_64 random_;
  size_t num_sampled_ = 0;
  const size_t vocab_size_;
  std::vector<uint32_t> completion_counts_;  // [vocab_size]
  std::vector<int32_t> completion_ids_;      // those with a count
  std::vector<bool> seen_;                   // [vocab_size]: prompt and completion
  std::vector<int32_t> seen_ids_;            // those that were
  std::vector<float> largest_;               // heap of the top_k largest logits
  std::vector<float> weights_;               // [vocab_size], where all tokens may be drawn
  std::vector<Candidate> candidates_;        // what may be drawn, by id
  std::vector<Candidate> scratch_;
};

}  // namespace nibble

#endif  // NIBBLE_GENERATION_SAMPLER_H_
