#ifndef NIBBLE_MODELS_CAUSAL_LM_H_
#define NIBBLE_MODELS_CAUSAL_LM_H_

// A loaded decoder-only language model. Immutable: any number of requests share it; what changes per
// request is its KvCache.

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "nibble/base/matrix_view.h"
#include "nibble/config/generation_config.h"
#include "nibble/config/pretrained_config.h"
#include "nibble/config/quantization_config.h"
#include "nibble/nn/linear.h"

namespace nibble {

class KvCache;  // nn/kv_cache.h

// Some consecutive tokens of one sequence. Its cache holds the tokens before them, and gets these.
struct SequenceChunk {
  std::span<const int32_t> tokens;
  KvCache* cache = nullptr;
  // Logits are wanted for the last this many tokens: 0 for all but the last chunk of a prompt, 1 to
  // go on, tokens.size() to score a text.
  size_t num_logits = 1;
  // Length that the sequence is known to reach: of the whole prompt while it is read in chunks; 0:
  // with these tokens. Only rotary kinds whose frequencies grow with the length look at it.
  size_t known_length = 0;
  // Each token as if it had come in a chunk of its own: of guesses nobody knows how many will stand.
  bool one_by_one = false;
};

// Bytes by what they are for; of the weights as they stand in memory.
struct WeightBytes {
  size_t linear = 0;
  size_t embedding = 0;
  size_t head = 0;  // 0 where it is the embedding itself, and not a copy in 8 bits
  size_t norm = 0;

  size_t total() const { return linear + embedding + head + norm; }
};

// Looks at a forward pass, for comparisons: ExecutionContext::observer. Called by the thread that runs it.
class ForwardObserver {
 public:
  virtual ~ForwardObserver() = default;
  // A linear of block `layer` ("self_attn.q_proj") made y of x: [tokens, features]. Not for experts.
  virtual void linear(size_t layer, std::string_view name, MatrixView<const float> x,
                      MatrixView<const float> y) = 0;
  // What block `layer` hands on: [tokens, hidden_size].
  virtual void block(size_t layer, MatrixView<const float> hidden) = 0;
};

class CausalLM {
 public:
  virtual ~CausalLM() = default;

  // Runs the chunks together (they may be of different length and at different positions). logits:
  // [sum of num_logits, vocab_size], in the order of the chunks. The numbers of a sequence are the
  // same bits whatever else is in the batch, however its tokens are cut into chunks, for any number
  // of threads. kInvalidArgument for a token outside the vocabulary; kOutOfMemory when a cache is full.
  virtual Status forward(std::span<const SequenceChunk> chunks, MatrixView<float> logits,
                         ExecutionContext& context) const = 0;

  // forward() in two steps that may be far apart: what the head reads is small, logits are not.
  // hidden: [sum of num_logits, head_size()]; logits: [hidden.rows(), vocab_size].
  virtual Status forward_hidden(std::span<const SequenceChunk> chunks, MatrixView<float> hidden,
                                ExecutionContext& context) const = 0;
  virtual void head_logits(MatrixView<const float> hidden, MatrixView<float> logits,
                           ExecutionContext& context) const = 0;
  virtual size_t head_size() const = 0;

  // An empty cache for one sequence of at most `max_tokens`; it grows by need.
  virtual std::unique_ptr<KvCache> make_cache(size_t max_tokens) const = 0;

  // Writes the model as a Hugging Face folder: config, generation config, tokenizer files, weights
  // (quantized ones as they are stored).
  virtual Status save_pretrained(const std::filesystem::path& folder, size_t max_shard_size) const = 0;

  virtual const PretrainedConfig& config() const = 0;
  virtual const GenerationConfig& generation_config() const = 0;
  virtual const std::optional<QuantizationConfig>& quantization_config() const = 0;
  virtual WeightBytes weight_bytes() const = 0;
  virtual size_t num_parameters() const = 0;
  virtual ComputeMode compute() const = 0;
  // Tokens from which on cached keys no longer fit the model's rotary frequencies, so that a sequence
  // that grows past it must be read again from its start (longrope); 0: never.
  virtual size_t cache_reset_length() const = 0;
  // "42 x int4-a8-avx512, 1 x f16-avx512": which kernels run.
  virtual std::string kernels() const = 0;
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_CAUSAL_LM_H_
