#include "nibble/calibration/block_walk.h"

#include <algorithm>

#include "nibble/calibration/walk_branch.h"
#include "nibble/calibration/walk_state.h"

namespace nibble {
namespace {

// A parallel block's branches read what the streams were before it.
Expected<StreamPair> copy_streams(WalkState& state) {
  StreamPair copy;
  NIBBLE_TRY(copy.quantized, make_store(state, state.num_tokens, state.hidden()));
  if (state.options.float_stream) {
    NIBBLE_TRY(copy.floating, make_store(state, state.num_tokens, state.hidden()));
  }
  const Status copied = for_groups(state, [&](const TokenGroup& group) -> Status {
    const MatrixView<float> rows = state.arena.take_matrix(group.rows, state.hidden());
    NIBBLE_RETURN_IF_ERROR(state.streams.quantized.read(group.first_row, rows, state.pool));
    NIBBLE_RETURN_IF_ERROR(copy.quantized.write(group.first_row, rows, state.pool));
    if (!state.options.float_stream) return {};
    NIBBLE_RETURN_IF_ERROR(state.streams.floating.read(group.first_row, rows, state.pool));
    return copy.floating.write(group.first_row, rows, state.pool);
  });
  if (!copied) return Failure(copied.error());
  return copy;
}

// Nothing reads them behind the first block's input, and they are large.
void drop_embeddings(WalkState& state) {
  const ModelSource& source = state.source;
  state.frame.embedding = {};
  state.frame.positions = {};
  for (const std::string_view module : {source.spec.names.embed, source.spec.names.positions}) {
    if (module.empty()) continue;
    source.checkpoint->drop(name_in_file(source.spec, module, source.prefix_missing) + ".weight");
  }
}

Status walk_branch(WalkState& state, const Branch& branch, const std::vector<std::string>& first_modules,
                   const std::string& last_module) {
  NIBBLE_TRY(LinearStack first, load_stack(state.source, first_modules));
  NIBBLE_RETURN_IF_ERROR(first_linears(state, branch, first));
  NIBBLE_TRY(LinearStack last, load_stack(state.source, {last_module}));
  return last_linear(state, branch, {first, 0, first.out}, last);
}

// Attention and MLP behind one norm: their first linears read the same and are quantized together.
Status walk_shared_norm(WalkState& state, const Branch& attention, const Branch& mlp,
                        const BlockModules& names) {
  const MlpModules& inner = names.mlps.front();
  NIBBLE_TRY(LinearStack first, load_stack(state.source, {names.qkv, names.q, names.k, names.v, inner.gate_up,
                                                          inner.gate, inner.up}));
  NIBBLE_RETURN_IF_ERROR(first_linears(state, attention, first));
  const PretrainedConfig& config = state.source.config;
  const size_t qkv = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim;
  {
    NIBBLE_TRY(LinearStack last, load_stack(state.source, {names.o}));
    NIBBLE_RETURN_IF_ERROR(last_linear(state, attention, {first, 0, qkv}, last));
  }
  NIBBLE_TRY(LinearStack last, load_stack(state.source, {inner.down}));
  return last_linear(state, mlp, {first, qkv, first.out - qkv}, last);
}

}  // namespace

BlockWalk::BlockWalk(const ModelSource& source, const CalibrationData& data, const WalkOptions& options,
                     ThreadPool& pool)
    : state_(std::make_unique<WalkState>(source, data, options, pool)) {}

BlockWalk::~BlockWalk() = default;

Status BlockWalk::start() {
  WalkState& state = *state_;
  const ModelSource& source = state.source;
  if (state.num_tokens == 0) {
    return fail(ErrorCode::kInvalidArgument, "there are no calibration tokens")
        .with_fix("Name more text with --dataset.");
  }
  WeightLoader loader = make_loader(state);
  NIBBLE_TRY(state.frame, load_frame(source.spec, source.config, source.prefix_missing, loader));
  size_t most = 0;
  for (const TokenGroup& group : state.groups) most = std::max(most, group.sequences);
  const KvCacheShape shape = {.num_layers = 1,
                              .num_key_value_heads = source.config.num_key_value_heads,
                              .head_dim = source.config.head_dim,
                              .value_head_dim = source.config.value_head_dim};
  state.caches.clear();
  for (size_t i = 0; i < most; ++i) state.caches.push_back(std::make_unique<KvCache>(shape, state.longest));
  NIBBLE_TRY(state.streams.quantized, make_store(state, state.num_tokens, state.hidden()));
  if (state.options.float_stream) {
    NIBBLE_TRY(state.streams.floating, make_store(state, state.num_tokens, state.hidden()));
  }
  const Status embedded = for_groups(state, [&](const TokenGroup& group) -> Status {
    const std::vector<SequenceChunk> chunks = chunks_of(state, group);
    for (const SequenceChunk& chunk : chunks) chunk.cache->truncate(0);
    const TokenBatch batch =
        make_token_batch(source.spec, chunks, state.frame.rope, state.frame.rope_sliding, state.context);
    const MatrixView<float> hidden = state.arena.take_matrix(group.rows, state.hidden());
    embed_tokens(source.spec, state.frame, batch, hidden, state.context);
    NIBBLE_RETURN_IF_ERROR(state.streams.quantized.write(group.first_row, hidden, state.pool));
    if (!state.options.float_stream) return {};
    return state.streams.floating.write(group.first_row, hidden, state.pool);
  });
  drop_embeddings(state);
  return embedded;
}

Expected<BlockReport> BlockWalk::walk(size_t layer, const WalkSteps& steps) {
  WalkState& state = *state_;
  const ModelSource& source = state.source;
  const BlockModules names = block_modules(source.spec, layer, source.prefix_missing);
  DecoderBlock parts;
  WeightLoader loader = make_loader(state);
  NIBBLE_RETURN_IF_ERROR(load_block_norms(source.spec, source.config, layer, names, loader, parts));
  const bool parallel = source.spec.names.parallel;
  StreamPair before;
  if (parallel) {
    NIBBLE_TRY(before, copy_streams(state));
  }
  StreamPair& input = parallel ? before : state.streams;
  const bool shared_norm = parallel && parts.mlp_in_norm == nullptr;
  const Norm* const mlp_norm = shared_norm ? parts.attention_in_norm.get() : parts.mlp_in_norm.get();
  Distance distance;
  const Branch attention = {
      parts, steps, input, true, parts.attention_in_norm.get(), parts.attention_out_norm.get()};
  const Branch mlp = {parts,
                      steps,
                      input,
                      false,
                      mlp_norm,
                      parts.mlp_out_norm.get(),
                      state.options.float_stream ? &distance : nullptr};
  if (shared_norm) {
    NIBBLE_RETURN_IF_ERROR(walk_shared_norm(state, attention, mlp, names));
  } else {
    if (!names.kv_a.empty()) {
      NIBBLE_RETURN_IF_ERROR(walk_latent_attention(state, attention, names));
    } else {
      NIBBLE_RETURN_IF_ERROR(walk_branch(state, attention, {names.qkv, names.q, names.k, names.v}, names.o));
    }
    if (!names.router.empty()) {
      NIBBLE_RETURN_IF_ERROR(walk_experts(state, mlp, names));
    } else {
      const MlpModules& inner = names.mlps.front();
      NIBBLE_RETURN_IF_ERROR(walk_branch(state, mlp, {inner.gate_up, inner.gate, inner.up}, inner.down));
    }
  }
  return BlockReport{distance.relative()};
}

Status BlockWalk::stream(bool quantized, size_t first_row, MatrixView<float> values) const {
  const ActivationStore& rows = quantized ? state_->streams.quantized : state_->streams.floating;
  return rows.read(first_row, values, state_->pool);
}

Status BlockWalk::save(const std::filesystem::path& folder) const {
  NIBBLE_RETURN_IF_ERROR(state_->streams.quantized.save(folder / "quantized.activations"));
  if (!state_->options.float_stream) return {};
  return state_->streams.floating.save(folder / "float.activations");
}

Status BlockWalk::load(const std::filesystem::path& folder) {
  NIBBLE_RETURN_IF_ERROR(state_->streams.quantized.load(folder / "quantized.activations"));
  if (!state_->options.float_stream) return {};
  return state_->streams.floating.load(folder / "float.activations");
}

}  // namespace nibble
