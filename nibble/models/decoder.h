#ifndef NIBBLE_MODELS_DECODER_H_
#define NIBBLE_MODELS_DECODER_H_

// The one decoder that runs every row of the architecture table: embedding, blocks of attention and
// MLP, final norm, head.

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/models/architecture.h"
#include "nibble/models/causal_lm.h"
#include "nibble/nn/kv_cache.h"
#include "nibble/nn/linear.h"
#include "nibble/nn/norm.h"
#include "nibble/nn/rotary_embedding.h"

namespace nibble {

struct TokenBatch;  // block_steps.h

// gate_up stands for gate and up; without either, the MLP has no gate.
struct MlpWeights {
  std::unique_ptr<Linear> gate, up, gate_up, down;
  std::vector<float> activation_scales;  // [intermediate_size]: BlockNames::scaled_activation; or empty
};

// Weights of one block, by their role; null where the architecture has none.
struct DecoderBlock {
  std::unique_ptr<Norm> attention_in_norm, attention_out_norm, mlp_in_norm, mlp_out_norm, q_norm, k_norm;
  std::unique_ptr<Norm> q_a_norm, kv_a_norm;
  std::unique_ptr<Linear> q, k, v, qkv, q_a, q_b, kv_a, kv_b, o;
  std::unique_ptr<Linear> router, shared_gate;
  std::vector<float> router_correction;  // [experts], or empty
  std::vector<MlpWeights> mlps;  // one, or the experts: those that the router chooses from, the shared one
  size_t window = 0;             // tokens seen; 0: all
  bool sliding_rope = false;
  bool rotates = true;
};

struct DecoderWeights {
  Tensor embedding;  // [vocab_size, embedding_size]
  Tensor positions;  // [positions + offset, hidden_size], or empty
  std::unique_ptr<Linear> project_in, project_out;
  std::vector<DecoderBlock> blocks;
  std::unique_ptr<Norm> embed_norm, final_norm;
  std::unique_ptr<Linear> head;
  std::optional<RotaryEmbedding> rope, rope_sliding;
};

// What from_pretrained found, for save_pretrained and for questions about the model.
struct DecoderOrigin {
  ModelFiles files;
  std::shared_ptr<const Checkpoint> checkpoint;
  std::optional<QuantizationConfig> quantization;
  bool pre_quantized = false;
  GenerationConfig generation;
  WeightBytes bytes;
  size_t num_parameters = 0;
};

class Decoder final : public CausalLM {
 public:
  Decoder(DecoderSpec spec, PretrainedConfig config, DecoderWeights weights, DecoderOrigin origin,
          ComputeMode compute, bool eager_attention, KvCacheType kv_cache_type);

  Status forward(std::span<const SequenceChunk> chunks, MatrixView<float> logits,
                 ExecutionContext& context) const override;
  Status forward_hidden(std::span<const SequenceChunk> chunks, MatrixView<float> hidden,
                        ExecutionContext& context) const override;
  void head_logits(MatrixView<const float> hidden, MatrixView<float> logits,
                   ExecutionContext& context) const override;
  size_t head_size() const override { return spec_.embedding_size; }
  std::unique_ptr<KvCache> make_cache(size_t max_tokens) const override;
  Status save_pretrained(const std::filesystem::path& folder, size_t max_shard_size) const override;

  const PretrainedConfig& config() const override { return config_; }
  const GenerationConfig& generation_config() const override { return origin_.generation; }
  const std::optional<QuantizationConfig>& quantization_config() const override {
    return origin_.quantization;
  }
  WeightBytes weight_bytes() const override { return origin_.bytes; }
  size_t num_parameters() const override { return origin_.num_parameters; }
  ComputeMode compute() const override { return compute_; }
  size_t cache_reset_length() const override;
  std::string kernels() const override;

 private:
  Status check(std::span<const SequenceChunk> chunks, MatrixView<float> hidden) const;
  // A linear, its name inside the block, for whoever looks on, and where its output goes.
  struct NamedOutput {
    const Linear* linear;
    std::string_view name;
    MatrixView<float> y;
  };
  void run_linears(size_t layer, MatrixView<const float> x, std::initializer_list<NamedOutput> outputs,
                   ExecutionContext& context) const;
  void attention(size_t layer, const TokenBatch& batch, MatrixView<const float> x, MatrixView<float> y,
                 ExecutionContext& context) const;
  void latent_projections(size_t layer, MatrixView<const float> x, MatrixView<float> qkv,
                          ExecutionContext& context) const;
  void mlp(size_t layer, const MlpWeights& weights, MatrixView<const float> x, MatrixView<float> y,
           ExecutionContext& context) const;
  void experts(size_t layer, MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const;
  void feed_forward(size_t layer, MatrixView<const float> x, MatrixView<float> y,
                    ExecutionContext& context) const;
  void head_inputs(const TokenBatch& batch, MatrixView<const float> hidden, MatrixView<float> out,
                   ExecutionContext& context) const;

  const DecoderSpec spec_;
  const PretrainedConfig config_;
  const DecoderWeights weights_;
  const DecoderOrigin origin_;
  const ComputeMode compute_;
  const bool eager_attention_;
  const KvCacheType kv_cache_type_;
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_DECODER_H_
