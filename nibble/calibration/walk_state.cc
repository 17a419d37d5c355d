#include "nibble/calibration/walk_state.h"

#include <algorithm>

#include "nibble/base/cancel.h"
#include "nibble/base/check.h"

namespace nibble {

WalkState::WalkState(const ModelSource& source_, const CalibrationData& data_, const WalkOptions& options_,
                     ThreadPool& pool_)
    : source(source_), data(data_), options(options_), pool(pool_), context{pool, arena} {
  for (size_t s = 0; s < data.sequences.size(); ++s) {
    if (groups.empty() || groups.back().rows >= options.tokens_at_once)
      groups.push_back({num_tokens, 0, s, 0});
    groups.back().rows += data.sequences[s].size();
    ++groups.back().sequences;
    num_tokens += data.sequences[s].size();
    longest = std::max(longest, data.sequences[s].size());
  }
}

WeightLoader make_loader(const WalkState& state) {
  const ModelSource& source = state.source;
  return WeightLoader(source.checkpoint, source.slots, source.quantized, source.quantization,
                      {.linear = {.compute = ComputeMode::kF32},
                       .dtype = std::nullopt,
                       .norm_adds_one = source.spec.names.norm_adds_one},
                      state.pool);
}

Expected<ActivationStore> make_store(const WalkState& state, size_t tokens, size_t width) {
  const ActivationShape shape = {tokens, width, state.options.activations};
  if (state.options.spill.empty()) return ActivationStore::in_memory(shape);
  return ActivationStore::in_file(shape, state.options.spill);
}

Expected<ActivationStore*> inner_rows_of(WalkState& state, size_t width) {
  ActivationStore& store = state.inner_rows;
  const ActivationShape shape = {state.num_tokens, width, state.options.activations};
  if (shape.bytes() > store.capacity()) {
    store = ActivationStore();  // goes first: the two are not there together
    NIBBLE_TRY(store, make_store(state, state.num_tokens, width));
  } else {
    store.reshape(shape);
  }
  return &store;
}

Status for_groups(WalkState& state, const std::function<Status(const TokenGroup&)>& fn) {
  for (const TokenGroup& group : state.groups) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    const Arena::Scope scope(state.arena);
    NIBBLE_RETURN_IF_ERROR(fn(group));
  }
  return {};
}

std::vector<SequenceChunk> chunks_of(const WalkState& state, const TokenGroup& group) {
  std::vector<SequenceChunk> chunks;
  for (size_t i = 0; i < group.sequences; ++i) {
    chunks.push_back({state.data.sequences[group.first_sequence + i], state.caches[i].get(), 0, 0});
  }
  return chunks;
}

void apply(const LinearRows& linear, MatrixView<const float> x, MatrixView<float> y,
           linalg::Arithmetic arithmetic, ThreadPool& pool) {
  linalg::gemm({x}, {linear.weight, true}, y, {.arithmetic = arithmetic}, pool);
  if (linear.bias != nullptr) add_bias(linear.bias, y, pool);
}

void branch_input(WalkState& state, const Norm* norm, MatrixView<const float> residual, MatrixView<float> x) {
  if (state.source.spec.norm_before_branch && norm != nullptr) {
    norm->forward(residual, x, state.context);
  } else if (x.data() != residual.data()) {
    copy_rows(residual, x, state.pool);
  }
}

void finish_branch(WalkState& state, const Norm* in, const Norm* out, MatrixView<float> branch,
                   MatrixView<float> residual) {
  if (out != nullptr) out->forward(branch, branch, state.context);
  add_rows(branch, state.source.spec.residual_scale, residual, state.context);
  if (!state.source.spec.norm_before_branch) in->forward(residual, residual, state.context);
}

Latents latents_of(WalkState& state, const DecoderBlock& parts, const LinearRows& first,
                   MatrixView<const float> x, linalg::Arithmetic arithmetic) {
  const DecoderSpec& spec = state.source.spec;
  const size_t kv_cols = spec.kv_rank + state.source.config.rope_head_dim;
  const size_t q_cols = first.weight.rows() - kv_cols;
  const MatrixView<float> made = state.arena.take_matrix(x.rows(), first.weight.rows());
  apply(first, x, made, arithmetic, state.pool);
  Latents latents = {made.cols(0, q_cols), state.arena.take_matrix(x.rows(), spec.kv_rank),
                     made.cols(q_cols + spec.kv_rank, state.source.config.rope_head_dim)};
  parts.kv_a_norm->forward(made.cols(q_cols, spec.kv_rank), latents.kv, state.context);
  if (parts.q_a_norm != nullptr) {
    latents.q = state.arena.take_matrix(x.rows(), q_cols);
    parts.q_a_norm->forward(made.cols(0, q_cols), latents.q, state.context);
  }
  return latents;
}

namespace {

// The input of attend_tokens().
void latent_qkv(WalkState& state, const DecoderBlock& parts, const AttentionLinears& linears,
                MatrixView<const float> x, MatrixView<float> qkv, linalg::Arithmetic arithmetic) {
  const PretrainedConfig& config = state.source.config;
  const Arena::Scope scope(state.arena);
  const Latents latents = latents_of(state, parts, linears.first, x, arithmetic);
  const MatrixView<float> queries = qkv.cols(0, config.num_attention_heads * config.head_dim);
  if (linears.q_b.weight.data() != nullptr) {
    apply(linears.q_b, latents.q, queries, arithmetic, state.pool);
  } else {
    copy_rows(latents.q, queries, state.pool);
  }
  const MatrixView<float> kv = state.arena.take_matrix(x.rows(), linears.kv_b.weight.rows());
  apply(linears.kv_b, latents.kv, kv, arithmetic, state.pool);
  place_keys_and_values(config, kv, latents.rotated, qkv, state.context);
}

}  // namespace

void attention_values(WalkState& state, const DecoderBlock& parts, const AttentionLinears& linears,
                      const TokenGroup& group, MatrixView<const float> x, MatrixView<float> inner,
                      linalg::Arithmetic arithmetic) {
  const Arena::Scope scope(state.arena);
  const PretrainedConfig& config = state.source.config;
  const size_t heads = config.num_attention_heads + config.num_key_value_heads;  // of queries and keys
  const MatrixView<float> qkv = state.arena.take_matrix(
      x.rows(), heads * config.head_dim + config.num_key_value_heads * config.value_head_dim);
  if (linears.kv_b.weight.data() != nullptr) {
    latent_qkv(state, parts, linears, x, qkv, arithmetic);
  } else {
    apply(linears.first, x, qkv, arithmetic, state.pool);
  }
  const std::vector<SequenceChunk> chunks = chunks_of(state, group);
  for (const SequenceChunk& chunk : chunks) {
    chunk.cache->truncate(0);
    // max_tokens is the longest sequence: there is room.
    NIBBLE_CHECK(chunk.cache->reserve(chunk.tokens.size()).has_value());
  }
  const TokenBatch batch =
      make_token_batch(state.source.spec, chunks, state.frame.rope, state.frame.rope_sliding, state.context);
  attend_tokens({state.source.spec, state.source.config, parts, 0, false}, batch, qkv, inner, state.context);
}

void mlp_values(WalkState& state, const LinearRows& first, MatrixView<const float> x, MatrixView<float> inner,
                linalg::Arithmetic arithmetic) {
  const kernels::Activation activation = state.source.spec.activation;
  const size_t width = inner.cols();
  if (first.weight.rows() == width) {
    apply(first, x, inner, arithmetic, state.pool);
    activate_rows(activation, {}, inner, state.context);
    return;
  }
  const Arena::Scope scope(state.arena);
  const MatrixView<float> y = state.arena.take_matrix(x.rows(), 2 * width);
  apply(first, x, y, arithmetic, state.pool);
  activate_rows(activation, y.cols(0, width), y.cols(width, width), state.context);
  copy_rows(y.cols(width, width), inner, state.pool);
}

}  // namespace nibble
