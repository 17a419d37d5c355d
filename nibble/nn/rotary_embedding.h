#ifndef NIBBLE_NN_ROTARY_EMBEDDING_H_
#define NIBBLE_NN_ROTARY_EMBEDDING_H_

// Rotary position embedding (RoFormer, arXiv:2104.09864) with the scaling kinds of Transformers'
// ROPE_INIT_FUNCTIONS: default, linear, dynamic (NTK), yarn (arXiv:2309.00071), longrope
// (arXiv:2402.13753), llama3.

#include <cstddef>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/config/pretrained_config.h"

namespace nibble {

// Immutable.
class RotaryEmbedding {
 public:
  // kInvalidArgument for parameters that contradict each other.
  static Expected<RotaryEmbedding> create(const RopeParameters& parameters, size_t head_dim,
                                          size_t max_position_embeddings);

  size_t rotary_dims() const { return 2 * half_; }  // of head_dim; the rest passes through

  // cos and sin of the angles at `position`: [rotary_dims / 2] each, attention factor included.
  // sequence_length: tokens the sequence is known to have; the dynamic and longrope kinds choose
  // their frequencies by it.
  void angles(size_t position, size_t sequence_length, float* cos, float* sin) const;

  // From this length on other frequencies apply, and keys that were cached before do not fit any
  // more (longrope); 0: never.
  size_t switch_length() const { return switch_length_; }

 private:
  RotaryEmbedding() = default;

  size_t half_ = 0;
  float attention_factor_ = 1.f;
  std::vector<float> inv_freq_;       // [half_]
  std::vector<float> inv_freq_long_;  // longrope, beyond switch_length_
  size_t switch_length_ = 0;
  // dynamic: base * (factor * n / max - (factor - 1))^(dims / (dims - 2)) for n > max
  bool dynamic_ = false;
  double base_ = 10000.0;
  double factor_ = 1.0;
  size_t max_positions_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_NN_ROTARY_EMBEDDING_H_
