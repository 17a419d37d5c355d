#include "nibble/models/forward_memory.h"

#include <algorithm>

#include "nibble/kernels/attention.h"
#include "nibble/models/block_steps.h"
#include "nibble/models/load_weights.h"
#include "nibble/nn/rotary_embedding.h"

namespace nibble {
namespace {

// Counts what base/arena.h would take from the system: it grows in blocks, each as large as all before it,
// and keeps the sum.
class ArenaMeter {
 public:
  class Scope {
   public:
    explicit Scope(ArenaMeter& meter) : meter_(meter), block_(meter.block_), used_(meter.used_) {}
    ~Scope() {
      meter_.block_ = block_;
      meter_.used_ = used_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    ArenaMeter& meter_;
    const size_t block_;
    const size_t used_;
  };

  void take(size_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    if (blocks_.empty() || used_ + bytes > blocks_[block_]) {
      if (!blocks_.empty()) ++block_;
      used_ = 0;
      if (block_ >= blocks_.size() || blocks_[block_] < bytes) {
        blocks_.resize(block_);
        blocks_.push_back(std::max({bytes, kMinBlock, capacity()}));
      }
    }
    used_ += bytes;
  }
  void take_matrix(size_t rows, size_t cols) { take(rows * cols * sizeof(float)); }

  size_t capacity() const {
    size_t bytes = 0;
    for (const size_t block : blocks_) bytes += block;
    return bytes;
  }

 private:
  static constexpr size_t kMinBlock = size_t{1} << 20;
  std::vector<size_t> blocks_;
  size_t block_ = 0;
  size_t used_ = 0;
};

// The steps of decoder.cc with nothing but their memory.
class Walk {
 public:
  Walk(const ForwardShape& shape, const LinearSizeOf& size_of, size_t tokens, size_t threads)
      : spec_(shape.spec),
        config_(shape.config),
        prefix_missing_(shape.prefix_missing),
        size_of_(size_of),
        tokens_(tokens),
        threads_(threads) {}

  size_t run(size_t num_logits) {
    const ArenaMeter::Scope scope(meter_);
    meter_.take(tokens_ * sizeof(TokenBatch::Row));
    take_angles();
    for (int i = 0; i < 3; ++i) meter_.take_matrix(tokens_, config_.hidden_size);
    for (size_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      // Blocks differ in whether they have experts.
      if (layer > 0 && spec_.is_sparse(layer) == spec_.is_sparse(layer - 1)) continue;
      modules_ = block_modules(spec_, layer, prefix_missing_);
      const ArenaMeter::Scope inner(meter_);
      if (spec_.names.parallel) meter_.take_matrix(tokens_, config_.hidden_size);
      attention();
      experts_or_mlp();
    }
    head(num_logits);
    return meter_.capacity();
  }

 private:
  void take_angles() {
    if (!spec_.names.rotary) return;
    const size_t kinds = config_.rope_sliding ? 4 : 2;
    const auto rotated =
        static_cast<size_t>(static_cast<double>(config_.rope_head_dim) * config_.rope.partial_rotary_factor);
    for (size_t i = 0; i < kinds; ++i) meter_.take_matrix(tokens_, rotated / 2);
  }

  void linear(const std::string& module, size_t tokens) {
    if (module.empty()) return;
    const ArenaMeter::Scope scope(meter_);
    meter_.take(size_of_(module).scratch_bytes(tokens, threads_));
  }

  void attention() {
    const size_t q = config_.num_attention_heads * config_.head_dim;
    const size_t kv = config_.num_key_value_heads * (config_.head_dim + config_.value_head_dim);
    const ArenaMeter::Scope scope(meter_);
    meter_.take_matrix(tokens_, q + kv);
    for (const std::string& module : {modules_.qkv, modules_.q, modules_.k, modules_.v})
      linear(module, tokens_);
    if (!modules_.kv_a.empty()) latent_projections();
    meter_.take_matrix(tokens_, config_.num_attention_heads * config_.value_head_dim);
    if (!modules_.qkv.empty() && spec_.names.qkv_by_head && config_.num_key_value_heads > 1) {
      const ArenaMeter::Scope inner(meter_);
      meter_.take_matrix(threads_, q + kv);
    }
    {
      const ArenaMeter::Scope inner(meter_);
      const size_t group = config_.num_attention_heads / config_.num_key_value_heads;
      const size_t rows = group * std::min(attention_tile_tokens(group), tokens_);
      const kernels::AttentionShape shape = {config_.head_dim, config_.value_head_dim};
      meter_.take(threads_ * kernels::attention_scratch(shape, rows) * sizeof(float));
      meter_.take(threads_ * rows * sizeof(kernels::AttentionRow));
    }
    linear(modules_.o, tokens_);
  }

  void latent_projections() {
    const ArenaMeter::Scope scope(meter_);
    const size_t plain_dim = config_.head_dim - config_.rope_head_dim;
    meter_.take_matrix(tokens_, spec_.kv_rank + config_.rope_head_dim);
    if (!modules_.q_a.empty()) meter_.take_matrix(tokens_, spec_.q_rank);
    for (const std::string& module : {modules_.q_a, modules_.kv_a, modules_.q_b}) linear(module, tokens_);
    meter_.take_matrix(tokens_, spec_.kv_rank);
    meter_.take_matrix(tokens_, config_.num_attention_heads * (plain_dim + config_.value_head_dim));
    linear(modules_.kv_b, tokens_);
  }

  void gated(const MlpModules& mlp, size_t inner, size_t tokens) {
    const LinearSize gate = size_of_(mlp.gate);
    const auto together = gated_scratch_bytes(gate, size_of_(mlp.up), tokens, threads_);
    if (together) {
      const ArenaMeter::Scope scope(meter_);
      meter_.take(gate.scratch_bytes(tokens, threads_) + *together);
    } else {
      meter_.take_matrix(tokens, inner);
      linear(mlp.gate, tokens);
    }
  }

  void mlp(const MlpModules& mlp, size_t inner, size_t tokens) {
    const ArenaMeter::Scope scope(meter_);
    meter_.take_matrix(tokens, mlp.gate_up.empty() ? inner : 2 * inner);
    linear(mlp.gate_up, tokens);
    if (!mlp.gate.empty()) gated(mlp, inner, tokens);
    linear(mlp.up, tokens);
    linear(mlp.down, tokens);
  }

  // All tokens may choose one expert.
  void experts_or_mlp() {
    if (modules_.router.empty()) return mlp(modules_.mlps.front(), config_.intermediate_size, tokens_);
    const ArenaMeter::Scope scope(meter_);
    meter_.take_matrix(tokens_, modules_.mlps.size());
    const auto expert = [&](const MlpModules& modules, size_t inner) {
      const ArenaMeter::Scope expert_scope(meter_);
      meter_.take(tokens_ * sizeof(size_t));
      for (int i = 0; i < 2; ++i) meter_.take_matrix(tokens_, config_.hidden_size);
      mlp(modules, inner, tokens_);
    };
    expert(modules_.mlps.front(), spec_.expert_size);
    if (spec_.shared_expert_size > 0) expert(modules_.mlps.back(), spec_.shared_expert_size);
  }

  void head(size_t num_logits) {
    const ArenaMeter::Scope scope(meter_);
    meter_.take_matrix(num_logits, config_.hidden_size);
    linear(name_in_file(spec_, spec_.names.head, prefix_missing_), num_logits);
  }

  const DecoderSpec& spec_;
  const PretrainedConfig& config_;
  BlockModules modules_;  // of the layer
  const bool prefix_missing_;
  const LinearSizeOf& size_of_;
  const size_t tokens_;
  const size_t threads_;
  ArenaMeter meter_;
};

}  // namespace

size_t forward_arena_bytes(const ForwardShape& shape, const LinearSizeOf& size_of, size_t tokens,
                           size_t num_logits, size_t threads) {
  return Walk(shape, size_of, tokens, threads).run(num_logits);
}

}  // namespace nibble
