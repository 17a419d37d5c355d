#ifndef NIBBLE_MODELS_BLOCK_STEPS_H_
#define NIBBLE_MODELS_BLOCK_STEPS_H_

// The steps of a decoder between its linear layers, for whoever runs them: the decoder with all its
// weights, or the quantizer that walks a model block by block.

#include <span>

#include "nibble/models/decoder.h"

namespace nibble {

inline constexpr size_t kRowsPerTask = 8;  // that one task takes

// The tokens of one forward pass, chunk after chunk. Lives in the arena of its context.
struct TokenBatch {
  struct Row {
    int32_t token;
    size_t position;
    size_t sequence_length;
  };

  std::span<const SequenceChunk> chunks;
  std::span<const Row> rows;
  MatrixView<float> cos, sin, cos_sliding, sin_sliding;  // [rows, rotary_dims / 2]; empty without rotation
  MatrixView<float> score_bias;  // [heads, positions]: of ALiBi in bfloat16; empty without
};

// Room for the tokens in the caches is there (KvCache::reserve).
TokenBatch make_token_batch(const DecoderSpec& spec, std::span<const SequenceChunk> chunks,
                            const std::optional<RotaryEmbedding>& rope,
                            const std::optional<RotaryEmbedding>& rope_sliding, ExecutionContext& context);

// hidden: [rows, hidden_size]: embedding, projection and positions.
void embed_tokens(const DecoderSpec& spec, const DecoderWeights& weights, const TokenBatch& batch,
                  MatrixView<float> hidden, ExecutionContext& context);

// From queries, keys and values to the input of the output projection: clamp, norms, rotation, the cache
// of layer `cache_layer`, attention. Only the norms, window and sliding_rope of `block` are looked at.
// qkv: [rows, (heads + kv_heads) * head_dim + kv_heads * value_head_dim], changed; out: [rows, heads *
// value_head_dim].
struct AttentionStep {
  const DecoderSpec& spec;
  const PretrainedConfig& config;
  const DecoderBlock& block;
  size_t cache_layer = 0;
  bool eager = false;  // the plain reference
};
// Tokens that read a head's keys and values together, of a model with `group` query heads for one of keys.
size_t attention_tile_tokens(size_t group);
void attend_tokens(const AttentionStep& step, const TokenBatch& batch, MatrixView<float> qkv,
                   MatrixView<float> out, ExecutionContext& context);

// The keys and values of qkv, as attend_tokens() reads it, for latent attention. kv: [rows, heads * (head_dim
// - rope_head_dim + value_head_dim)], of each head the part of its key that is not rotated, and its value.
// rotated: [rows, rope_head_dim], the rest of every head's key.
void place_keys_and_values(const PretrainedConfig& config, MatrixView<const float> kv,
                           MatrixView<const float> rotated, MatrixView<float> qkv, ExecutionContext& context);

// values := activation(gate) * values, or activation(values) where gate is empty.
void activate_rows(kernels::Activation activation, MatrixView<const float> gate, MatrixView<float> values,
                   ExecutionContext& context);

// values[r][c] /= divisors[c].
void divide_columns(std::span<const float> divisors, MatrixView<float> values, ExecutionContext& context);

// What the router gives for each expert becomes the weights of the chosen experts, 0 for the others.
// scores: [rows, experts], and with a shared expert one more column: what its gate gives becomes its weight,
// which is 1 where it has none. correction: [experts], or empty.
void route_tokens(const DecoderSpec& spec, std::span<const float> correction, MatrixView<float> scores,
                  ExecutionContext& context);

// What the model does with the numbers of its head: a scale, a soft cap.
void finish_logits(const DecoderSpec& spec, MatrixView<float> logits);

// y += scale * x, row by row.
void add_rows(MatrixView<const float> x, float scale, MatrixView<float> y, ExecutionContext& context);

}  // namespace nibble

#endif  // NIBBLE_MODELS_BLOCK_STEPS_H_
