#include "nibble/models/decoder.h"

#include <algorithm>
#include <map>

#include "nibble/kernels/elementwise.h"
#include "nibble/models/block_steps.h"

namespace nibble {

Decoder::Decoder(DecoderSpec spec, PretrainedConfig config, DecoderWeights weights, DecoderOrigin origin,
                 ComputeMode compute, bool eager_attention, KvCacheType kv_cache_type)
    : spec_(std::move(spec)),
      config_(std::move(config)),
      weights_(std::move(weights)),
      origin_(std::move(origin)),
      compute_(compute),
      eager_attention_(eager_attention),
      kv_cache_type_(kv_cache_type) {}

std::unique_ptr<KvCache> Decoder::make_cache(size_t max_tokens) const {
  return std::make_unique<KvCache>(KvCacheShape{config_.num_hidden_layers, config_.num_key_value_heads,
                                                config_.head_dim, kv_cache_type_, config_.value_head_dim},
                                   max_tokens);
}

size_t Decoder::cache_reset_length() const { return weights_.rope ? weights_.rope->switch_length() : 0; }

std::string Decoder::kernels() const {
  std::map<std::string, size_t> counts;
  const auto count = [&](const std::unique_ptr<Linear>& linear) {
    if (linear != nullptr) ++counts[std::string(linear->kernel())];
  };
  for (const DecoderBlock& block : weights_.blocks) {
    for (const auto* linear : {&block.q, &block.k, &block.v, &block.qkv, &block.q_a, &block.kv_a, &block.q_b,
                               &block.kv_b, &block.o, &block.router, &block.shared_gate})
      count(*linear);
    for (const MlpWeights& mlp : block.mlps) {
      for (const auto* linear : {&mlp.gate, &mlp.up, &mlp.gate_up, &mlp.down}) count(*linear);
    }
  }
  count(weights_.head);
  std::string text;
  for (const auto& [name, number] : counts) {
    text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", number, name);
  }
  return text;
}

Status Decoder::check(std::span<const SequenceChunk> chunks, MatrixView<float> hidden) const {
  size_t num_logits = 0;
  for (const SequenceChunk& chunk : chunks) {
    num_logits += chunk.num_logits;
    if (chunk.tokens.empty()) return fail(ErrorCode::kInvalidArgument, "an empty chunk of tokens");
    if (chunk.num_logits > chunk.tokens.size()) {
      return fail(ErrorCode::kInvalidArgument, "logits of {} tokens are wanted, but the chunk has {}",
                  chunk.num_logits, chunk.tokens.size());
    }
    for (const int32_t token : chunk.tokens) {
      if (token < 0 || static_cast<size_t>(token) >= config_.vocab_size) {
        return fail(ErrorCode::kInvalidArgument, "token id {} is outside the vocabulary of {}", token,
                    config_.vocab_size)
            .with_fix(
                "The tokenizer and the model do not belong together, or the ids are from another model.");
      }
    }
    const size_t end = chunk.cache->size() + chunk.tokens.size();
    if (!weights_.positions.bytes.empty() && end > config_.max_position_embeddings) {
      return fail(ErrorCode::kOutOfMemory, "{} tokens, but the model has positions for {}", end,
                  config_.max_position_embeddings)
          .with_fix("Use a shorter text.");
    }
  }
  if (hidden.rows() != num_logits || (num_logits > 0 && hidden.cols() != head_size())) {
    return fail(ErrorCode::kInvalidArgument, "room for [{}, {}] numbers, but [{}, {}] are computed",
                hidden.rows(), hidden.cols(), num_logits, head_size());
  }
  return {};
}

Status Decoder::forward(std::span<const SequenceChunk> chunks, MatrixView<float> logits,
                        ExecutionContext& context) const {
  if (logits.rows() > 0 && logits.cols() != config_.vocab_size) {
    return fail(ErrorCode::kInvalidArgument, "room for logits of {} tokens, but the vocabulary has {}",
                logits.cols(), config_.vocab_size);
  }
  const Arena::Scope scope(context.arena);
  const MatrixView<float> hidden = context.arena.take_matrix(logits.rows(), head_size());
  NIBBLE_RETURN_IF_ERROR(forward_hidden(chunks, hidden, context));
  head_logits(hidden, logits, context);
  return {};
}

Status Decoder::forward_hidden(std::span<const SequenceChunk> chunks, MatrixView<float> out,
                               ExecutionContext& context) const {
  NIBBLE_RETURN_IF_ERROR(check(chunks, out));
  size_t num_rows = 0;
  for (const SequenceChunk& chunk : chunks) {
    NIBBLE_RETURN_IF_ERROR(chunk.cache->reserve(chunk.tokens.size()));
    num_rows += chunk.tokens.size();
  }

  const Arena::Scope scope(context.arena);
  const TokenBatch batch = make_token_batch(spec_, chunks, weights_.rope, weights_.rope_sliding, context);
  const MatrixView<float> hidden = context.arena.take_matrix(num_rows, config_.hidden_size);
  const MatrixView<float> normed = context.arena.take_matrix(num_rows, config_.hidden_size);
  const MatrixView<float> branch = context.arena.take_matrix(num_rows, config_.hidden_size);
  embed_tokens(spec_, weights_, batch, hidden, context);

  // residual + out_norm(branch(in_norm(residual))), or in_norm(residual + branch(residual)).
  const auto run_branch = [&](const std::unique_ptr<Norm>& in_norm, const std::unique_ptr<Norm>& out_norm,
                              const auto& compute_branch) {
    if (spec_.norm_before_branch && in_norm != nullptr) {
      in_norm->forward(hidden, normed, context);
      compute_branch(normed);
    } else {
      compute_branch(hidden);
    }
    if (out_norm != nullptr) out_norm->forward(branch, branch, context);
    add_rows(branch, spec_.residual_scale, hidden, context);
    if (!spec_.norm_before_branch) in_norm->forward(hidden, hidden, context);
  };
  for (size_t layer = 0; layer < weights_.blocks.size(); ++layer) {
    const DecoderBlock& block = weights_.blocks[layer];
    if (spec_.names.parallel) {
      const Arena::Scope inner(context.arena);
      const MatrixView<float> second = context.arena.take_matrix(num_rows, config_.hidden_size);
      block.attention_in_norm->forward(hidden, normed, context);
      attention(layer, batch, normed, branch, context);
      if (block.mlp_in_norm != nullptr) block.mlp_in_norm->forward(hidden, normed, context);
      feed_forward(layer, normed, second, context);
      add_rows(branch, spec_.residual_scale, hidden, context);
      add_rows(second, spec_.residual_scale, hidden, context);
    } else {
      run_branch(block.attention_in_norm, block.attention_out_norm,
                 [&](MatrixView<const float> x) { attention(layer, batch, x, branch, context); });
      run_branch(block.mlp_in_norm, block.mlp_out_norm,
                 [&](MatrixView<const float> x) { feed_forward(layer, x, branch, context); });
    }
    if (context.observer != nullptr) context.observer->block(layer, hidden);
  }
  for (const SequenceChunk& chunk : chunks) chunk.cache->advance(chunk.tokens.size());
  head_inputs(batch, hidden, out, context);
  return {};
}

// Linears of block `layer` that read the same input.
void Decoder::run_linears(size_t layer, MatrixView<const float> x, std::initializer_list<NamedOutput> outputs,
                          ExecutionContext& context) const {
  LinearOutput list[3];
  size_t count = 0;
  for (const NamedOutput& output : outputs) list[count++] = {output.linear, output.y};
  forward_shared({list, count}, x, context);
  if (context.observer == nullptr) return;
  for (const NamedOutput& output : outputs) context.observer->linear(layer, output.name, x, output.y);
}

void Decoder::attention(size_t layer, const TokenBatch& batch, MatrixView<const float> x, MatrixView<float> y,
                        ExecutionContext& context) const {
  const DecoderBlock& block = weights_.blocks[layer];
  const size_t num_rows = batch.rows.size();
  const size_t q_size = config_.num_attention_heads * config_.head_dim;
  const size_t k_size = config_.num_key_value_heads * config_.head_dim;
  const size_t v_size = config_.num_key_value_heads * config_.value_head_dim;

  const Arena::Scope scope(context.arena);
  const MatrixView<float> qkv = context.arena.take_matrix(num_rows, q_size + k_size + v_size);
  const MatrixView<float> q = qkv.cols(0, q_size);
  const MatrixView<float> k = qkv.cols(q_size, k_size);
  const MatrixView<float> v = qkv.cols(q_size + k_size, v_size);
  const BlockNames& names = spec_.names.block;
  if (block.kv_a != nullptr) {
    latent_projections(layer, x, qkv, context);
  } else if (block.qkv != nullptr) {
    run_linears(layer, x, {{block.qkv.get(), names.qkv, qkv}}, context);
  } else {
    run_linears(layer, x,
                {{block.q.get(), names.q, q}, {block.k.get(), names.k, k}, {block.v.get(), names.v, v}},
                context);
  }
  const MatrixView<float> out =
      context.arena.take_matrix(num_rows, config_.num_attention_heads * config_.value_head_dim);
  const AttentionStep step = {spec_, config_, block, layer, eager_attention_};
  attend_tokens(step, batch, qkv, out, context);
  run_linears(layer, out, {{block.o.get(), names.o, y}}, context);
}

// Queries, keys and values by way of short vectors, which have a norm each.
void Decoder::latent_projections(size_t layer, MatrixView<const float> x, MatrixView<float> qkv,
                                 ExecutionContext& context) const {
  const DecoderBlock& block = weights_.blocks[layer];
  const BlockNames& names = spec_.names.block;
  const Arena::Scope scope(context.arena);
  const MatrixView<float> q = qkv.cols(0, config_.num_attention_heads * config_.head_dim);
  const MatrixView<float> kv_a = context.arena.take_matrix(x.rows(), block.kv_a->out_features());
  if (block.q_a == nullptr) {
    run_linears(layer, x, {{block.q.get(), names.q, q}, {block.kv_a.get(), names.kv_a, kv_a}}, context);
  } else {
    const MatrixView<float> q_a = context.arena.take_matrix(x.rows(), spec_.q_rank);
    run_linears(layer, x, {{block.q_a.get(), names.q_a, q_a}, {block.kv_a.get(), names.kv_a, kv_a}}, context);
    block.q_a_norm->forward(q_a, q_a, context);
    run_linears(layer, q_a, {{block.q_b.get(), names.q_b, q}}, context);
  }
  const MatrixView<float> latent = context.arena.take_matrix(x.rows(), spec_.kv_rank);
  block.kv_a_norm->forward(kv_a.cols(0, spec_.kv_rank), latent, context);
  const MatrixView<float> kv = context.arena.take_matrix(x.rows(), block.kv_b->out_features());
  run_linears(layer, latent, {{block.kv_b.get(), names.kv_b, kv}}, context);
  place_keys_and_values(config_, kv, kv_a.cols(spec_.kv_rank, config_.rope_head_dim), qkv, context);
}

void Decoder::mlp(size_t layer, const MlpWeights& weights, MatrixView<const float> x, MatrixView<float> y,
                  ExecutionContext& context) const {
  const BlockNames& names = spec_.names.block;
  const size_t num_rows = x.rows();
  const size_t inner = weights.down->in_features();
  const Arena::Scope scope(context.arena);
  const MatrixView<float> up =
      context.arena.take_matrix(num_rows, weights.gate_up != nullptr ? 2 * inner : inner);
  MatrixView<float> gate;
  MatrixView<float> values = up;
  bool is_done = false;
  if (weights.gate_up != nullptr) {
    run_linears(layer, x, {{weights.gate_up.get(), names.gate_up, up}}, context);
    gate = up.cols(0, inner);
    values = up.cols(inner, inner);
  } else if (weights.gate == nullptr) {
    run_linears(layer, x, {{weights.up.get(), names.up, up}}, context);
  } else {
    // Who looks on wants to see what the gate says.
    is_done = context.observer == nullptr &&
              forward_gated(*weights.gate, *weights.up, spec_.activation, x, values, context);
    if (!is_done) {
      gate = context.arena.take_matrix(num_rows, inner);
      run_linears(layer, x, {{weights.gate.get(), names.gate, gate}, {weights.up.get(), names.up, up}},
                  context);
    }
  }
  if (!is_done) activate_rows(spec_.activation, gate, values, context);
  if (!weights.activation_scales.empty()) divide_columns(weights.activation_scales, values, context);
  run_linears(layer, values, {{weights.down.get(), names.down, y}}, context);
}

// Each token goes to the experts that route_tokens() chooses, whose outputs are added with its weights, in
// the order of the experts, the shared one last. Nobody looks on: which tokens an expert gets differs from
// model to model.
void Decoder::experts(size_t layer, MatrixView<const float> x, MatrixView<float> y,
                      ExecutionContext& outer) const {
  const DecoderBlock& block = weights_.blocks[layer];
  ExecutionContext context{outer.pool, outer.arena};
  const size_t num_rows = x.rows();
  const size_t num_experts = block.mlps.size();
  const Arena::Scope scope(context.arena);
  const MatrixView<float> scores = context.arena.take_matrix(num_rows, num_experts);
  block.router->forward(x, scores.cols(0, spec_.num_experts), context);
  if (block.shared_gate != nullptr) {
    block.shared_gate->forward(x, scores.cols(spec_.num_experts, 1), context);
  }
  route_tokens(spec_, block.router_correction, scores, context);
  for (size_t r = 0; r < num_rows; ++r) std::fill_n(y.row(r), y.cols(), 0.f);
  for (size_t e = 0; e < num_experts; ++e) {
    const Arena::Scope expert_scope(context.arena);
    auto* const rows = context.arena.take<size_t>(num_rows);
    size_t n = 0;
    for (size_t r = 0; r < num_rows; ++r) {
      if (scores.row(r)[e] > 0.f) rows[n++] = r;
    }
    if (n == 0) continue;
    const MatrixView<float> in = context.arena.take_matrix(n, x.cols());
    const MatrixView<float> out = context.arena.take_matrix(n, y.cols());
    context.pool.parallel_for(n, kRowsPerTask, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) std::copy_n(x.row(rows[i]), x.cols(), in.row(i));
    });
    mlp(layer, block.mlps[e], in, out, context);
    context.pool.parallel_for(n, kRowsPerTask, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) {
        const float weight = scores.row(rows[i])[e];
        for (size_t c = 0; c < y.cols(); ++c) y.row(rows[i])[c] += weight * out.row(i)[c];
      }
    });
  }
  outer.finer_tokens += context.finer_tokens;
}

void Decoder::feed_forward(size_t layer, MatrixView<const float> x, MatrixView<float> y,
                           ExecutionContext& context) const {
  const DecoderBlock& block = weights_.blocks[layer];
  if (block.router != nullptr) {
    experts(layer, x, y, context);
  } else {
    mlp(layer, block.mlps.front(), x, y, context);
  }
}

// Only the rows whose logits are wanted.
void Decoder::head_inputs(const TokenBatch& batch, MatrixView<const float> hidden, MatrixView<float> out,
                          ExecutionContext& context) const {
  if (out.rows() == 0) return;
  const Arena::Scope scope(context.arena);
  const MatrixView<float> wanted =
      weights_.project_out == nullptr ? out : context.arena.take_matrix(out.rows(), config_.hidden_size);
  size_t row = 0;
  size_t next = 0;
  for (const SequenceChunk& chunk : batch.chunks) {
    row += chunk.tokens.size();
    for (size_t i = row - chunk.num_logits; i < row; ++i) {
      std::copy_n(hidden.row(i), hidden.cols(), wanted.row(next++));
    }
  }
  if (weights_.final_norm != nullptr) weights_.final_norm->forward(wanted, wanted, context);
  if (weights_.project_out != nullptr) weights_.project_out->forward(wanted, out, context);
}

void Decoder::head_logits(MatrixView<const float> hidden, MatrixView<float> logits,
                          ExecutionContext& context) const {
  if (logits.rows() == 0) return;
  weights_.head->forward(hidden, logits, context);
  finish_logits(spec_, logits);
}

}  // namespace nibble
