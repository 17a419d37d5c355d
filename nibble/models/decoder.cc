#include "nibble/models/decoder.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "nibble/base/float16.h"
#include "nibble/kernels/attention.h"
#include "nibble/kernels/elementwise.h"

namespace nibble {
namespace {

// Query rows of one sequence that go through the cache together, so that a block of keys and values
// is read once for all of them.
constexpr size_t kQueryTile = 16;
constexpr size_t kRowsPerTask = 8;

// Row `index` of a floating tensor [rows, width], times scale.
void copy_row(const Tensor& tensor, size_t index, float scale, std::span<float> out) {
  const size_t element = dtype_bits(tensor.dtype) / 8;
  const std::byte* const row = tensor.bytes.data() + index * out.size() * element;
  for (size_t i = 0; i < out.size(); ++i) {
    float value = 0;
    if (tensor.dtype == DType::kF32) {
      std::memcpy(&value, row + i * element, element);
    } else {
      uint16_t bits = 0;
      std::memcpy(&bits, row + i * element, element);
      value = tensor.dtype == DType::kF16 ? fp16_to_float(bits) : bf16_to_float(bits);
    }
    out[i] = value * scale;
  }
}

// y += x, row by row.
void add_rows(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) {
  context.pool.parallel_for(x.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) kernels::add(x.row(r), x.cols(), y.row(r));
  });
}

}  // namespace

// Tokens of all chunks one after the other. Lives in the arena.
struct Decoder::Batch {
  struct Row {
    int32_t token;
    size_t position;
    size_t sequence_length;
  };

  std::span<const SequenceChunk> chunks;
  std::span<const Row> rows;
  MatrixView<float> cos, sin, cos_sliding, sin_sliding;  // [rows, rotary_dims / 2]
};

Decoder::Decoder(DecoderSpec spec, PretrainedConfig config, DecoderWeights weights, DecoderOrigin origin,
                 ComputeMode compute, bool eager_attention)
    : spec_(std::move(spec)),
      config_(std::move(config)),
      weights_(std::move(weights)),
      origin_(std::move(origin)),
      compute_(compute),
      eager_attention_(eager_attention) {}

std::unique_ptr<KvCache> Decoder::make_cache(size_t max_tokens) const {
  return std::make_unique<KvCache>(
      KvCacheShape{config_.num_hidden_layers, config_.num_key_value_heads, config_.head_dim}, max_tokens);
}

size_t Decoder::cache_reset_length() const { return weights_.rope ? weights_.rope->switch_length() : 0; }

std::string Decoder::kernels() const {
  std::map<std::string, size_t> counts;
  const auto count = [&](const std::unique_ptr<Linear>& linear) {
    if (linear != nullptr) ++counts[std::string(linear->kernel())];
  };
  for (const DecoderBlock& block : weights_.blocks) {
    for (const auto* linear : {&block.q, &block.k, &block.v, &block.qkv, &block.o, &block.router})
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

Status Decoder::check(std::span<const SequenceChunk> chunks, MatrixView<float> logits) const {
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
  if (logits.rows() != num_logits || (num_logits > 0 && logits.cols() != config_.vocab_size)) {
    return fail(ErrorCode::kInvalidArgument, "room for [{}, {}] logits, but [{}, {}] are computed",
                logits.rows(), logits.cols(), num_logits, config_.vocab_size);
  }
  return {};
}

Status Decoder::forward(std::span<const SequenceChunk> chunks, MatrixView<float> logits,
                        ExecutionContext& context) const {
  NIBBLE_RETURN_IF_ERROR(check(chunks, logits));
  size_t num_rows = 0;
  for (const SequenceChunk& chunk : chunks) {
    NIBBLE_RETURN_IF_ERROR(chunk.cache->reserve(chunk.tokens.size()));
    num_rows += chunk.tokens.size();
  }

  const Arena::Scope scope(context.arena);
  Batch batch;
  batch.chunks = chunks;
  auto* const rows = context.arena.take<Batch::Row>(num_rows);
  size_t r = 0;
  for (const SequenceChunk& chunk : chunks) {
    const size_t start = chunk.cache->size();
    const size_t length = std::max(chunk.known_length, start + chunk.tokens.size());
    for (size_t i = 0; i < chunk.tokens.size(); ++i) rows[r++] = {chunk.tokens[i], start + i, length};
  }
  batch.rows = {rows, num_rows};
  const auto make_angles = [&](const RotaryEmbedding& rope, MatrixView<float>& cos, MatrixView<float>& sin) {
    cos = context.arena.take_matrix(num_rows, rope.rotary_dims() / 2);
    sin = context.arena.take_matrix(num_rows, rope.rotary_dims() / 2);
    for (size_t i = 0; i < num_rows; ++i) {
      rope.angles(rows[i].position, rows[i].sequence_length, cos.row(i), sin.row(i));
    }
  };
  if (weights_.rope) make_angles(*weights_.rope, batch.cos, batch.sin);
  if (weights_.rope_sliding) make_angles(*weights_.rope_sliding, batch.cos_sliding, batch.sin_sliding);

  const MatrixView<float> hidden = context.arena.take_matrix(num_rows, config_.hidden_size);
  const MatrixView<float> normed = context.arena.take_matrix(num_rows, config_.hidden_size);
  const MatrixView<float> branch = context.arena.take_matrix(num_rows, config_.hidden_size);
  embed(batch, hidden, context);

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
    add_rows(branch, hidden, context);
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
      add_rows(branch, hidden, context);
      add_rows(second, hidden, context);
      continue;
    }
    run_branch(block.attention_in_norm, block.attention_out_norm,
               [&](MatrixView<const float> x) { attention(layer, batch, x, branch, context); });
    run_branch(block.mlp_in_norm, block.mlp_out_norm,
               [&](MatrixView<const float> x) { feed_forward(layer, x, branch, context); });
  }
  for (const SequenceChunk& chunk : chunks) chunk.cache->advance(chunk.tokens.size());
  head(batch, hidden, logits, context);
  return {};
}

void Decoder::embed(const Batch& batch, MatrixView<float> hidden, ExecutionContext& context) const {
  const Arena::Scope scope(context.arena);
  const MatrixView<float> embedded = weights_.project_in == nullptr
                                         ? hidden
                                         : context.arena.take_matrix(batch.rows.size(), spec_.embedding_size);
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    copy_row(weights_.embedding, static_cast<size_t>(batch.rows[r].token), spec_.embedding_scale,
             embedded.row_span(r));
  }
  if (weights_.project_in != nullptr) weights_.project_in->forward(embedded, hidden, context);
  if (weights_.positions.bytes.empty()) return;
  float* const position = context.arena.take<float>(hidden.cols());
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    copy_row(weights_.positions, batch.rows[r].position + spec_.names.position_offset, 1.f,
             {position, hidden.cols()});
    kernels::add(position, hidden.cols(), hidden.row(r));
  }
}

void Decoder::attention(size_t layer, const Batch& batch, MatrixView<const float> x, MatrixView<float> y,
                        ExecutionContext& context) const {
  const DecoderBlock& block = weights_.blocks[layer];
  const size_t num_rows = batch.rows.size();
  const size_t q_size = config_.num_attention_heads * config_.head_dim;
  const size_t kv_size = config_.num_key_value_heads * config_.head_dim;

  const Arena::Scope scope(context.arena);
  const MatrixView<float> qkv = context.arena.take_matrix(num_rows, q_size + 2 * kv_size);
  const MatrixView<float> q = qkv.cols(0, q_size);
  const MatrixView<float> k = qkv.cols(q_size, kv_size);
  const MatrixView<float> v = qkv.cols(q_size + kv_size, kv_size);
  if (block.qkv != nullptr) {
    block.qkv->forward(x, qkv, context);
  } else {
    block.q->forward(x, q, context);
    block.k->forward(x, k, context);
    block.v->forward(x, v, context);
  }
  if (spec_.clip_qkv > 0.f) {
    for (size_t r = 0; r < num_rows; ++r) {
      for (float& value : qkv.row_span(r)) value = std::clamp(value, -spec_.clip_qkv, spec_.clip_qkv);
    }
  }
  if (block.q_norm != nullptr) block.q_norm->forward(q, q, context);
  if (block.k_norm != nullptr) block.k_norm->forward(k, k, context);
  rotate_and_store(layer, batch, q, k, v, context);

  const MatrixView<float> out = context.arena.take_matrix(num_rows, q_size);
  attend(layer, batch, q, out, context);
  block.o->forward(out, y, context);
}

void Decoder::rotate_and_store(size_t layer, const Batch& batch, MatrixView<float> q, MatrixView<float> k,
                               MatrixView<const float> v, ExecutionContext& context) const {
  const DecoderBlock& block = weights_.blocks[layer];
  const size_t head_dim = config_.head_dim;
  const MatrixView<float>& cos = block.sliding_rope ? batch.cos_sliding : batch.cos;
  const MatrixView<float>& sin = block.sliding_rope ? batch.sin_sliding : batch.sin;
  const auto rotate_row = [&](MatrixView<float> x, size_t r) {
    for (size_t c = 0; c < x.cols(); c += head_dim) {
      kernels::rotate_half(x.row(r) + c, cos.row(r), sin.row(r), cos.cols());
    }
  };
  if (weights_.rope) {
    context.pool.parallel_for(batch.rows.size(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        rotate_row(q, r);
        rotate_row(k, r);
      }
    });
  }
  // Threads share the heads: neighbouring tokens of one head lie in the same cache lines.
  context.pool.parallel_for(config_.num_key_value_heads, 1, [&](size_t begin, size_t end, size_t) {
    size_t r = 0;
    for (const SequenceChunk& chunk : batch.chunks) {
      for (size_t i = 0; i < chunk.tokens.size(); ++i, ++r) {
        for (size_t head = begin; head < end; ++head) {
          chunk.cache->write(layer, head, batch.rows[r].position, k.row(r) + head * head_dim,
                             v.row(r) + head * head_dim);
        }
      }
    }
  });
}

void Decoder::attend(size_t layer, const Batch& batch, MatrixView<const float> q, MatrixView<float> out,
                     ExecutionContext& context) const {
  const size_t head_dim = config_.head_dim;
  const size_t group = config_.num_attention_heads / config_.num_key_value_heads;
  const size_t window = weights_.blocks[layer].window;
  const kernels::AttentionShape shape = {.head_dim = head_dim,
                                         .value_head_dim = head_dim,
                                         .scale = spec_.attention_scale,
                                         .soft_cap = spec_.attention_soft_cap};
  const Arena::Scope scope(context.arena);
  // Tiles of each chunk: rows [first_tile[c], first_tile[c + 1]) of the list of tasks per head.
  const size_t num_chunks = batch.chunks.size();
  auto* const first_tile = context.arena.take<size_t>(num_chunks + 1);
  auto* const first_row = context.arena.take<size_t>(num_chunks + 1);
  first_tile[0] = first_row[0] = 0;
  size_t longest = 0;
  for (size_t c = 0; c < num_chunks; ++c) {
    const size_t tokens = batch.chunks[c].tokens.size();
    first_tile[c + 1] = first_tile[c] + (tokens + kQueryTile - 1) / kQueryTile;
    first_row[c + 1] = first_row[c] + tokens;
    longest = std::max(longest, batch.chunks[c].cache->size() + tokens);
  }
  const size_t num_tiles = first_tile[num_chunks];
  const size_t max_rows = kQueryTile * group;
  const size_t scratch_floats = eager_attention_ ? longest : kernels::attention_scratch(max_rows);
  const size_t workers = context.pool.num_threads();
  auto* const scratch = context.arena.take<float>(workers * scratch_floats);
  auto* const attention_rows = context.arena.take<kernels::AttentionRow>(workers * max_rows);

  // Tasks in the order of heads, so that one thread stays with the keys of a head.
  context.pool.parallel_for(
      num_tiles * config_.num_key_value_heads, 1, [&](size_t begin, size_t end, size_t worker) {
        for (size_t task = begin; task < end; ++task) {
          const size_t kv_head = task / num_tiles;
          const size_t tile = task % num_tiles;
          const auto* const next = std::upper_bound(first_tile, first_tile + num_chunks + 1, tile);
          const auto c = static_cast<size_t>(next - first_tile) - 1;
          const size_t row_begin = first_row[c] + (tile - first_tile[c]) * kQueryTile;
          const size_t row_end = std::min(row_begin + kQueryTile, first_row[c + 1]);

          kernels::AttentionRow* const list = attention_rows + worker * max_rows;
          size_t n = 0;
          for (size_t r = row_begin; r < row_end; ++r) {
            const size_t last = batch.rows[r].position + 1;
            const size_t first = window > 0 && last > window ? last - window : 0;
            for (size_t g = 0; g < group; ++g) {
              const size_t head = kv_head * group + g;
              const float slope = spec_.alibi_slopes.empty() ? 0.f : spec_.alibi_slopes[head];
              list[n++] = {q.row(r) + head * head_dim, out.row(r) + head * head_dim, first, last, slope};
            }
          }
          const kernels::AttentionBlocks kv = batch.chunks[c].cache->head(layer, kv_head);
          float* const mine = scratch + worker * scratch_floats;
          if (eager_attention_) {
            kernels::attend_reference(shape, {list, n}, kv, mine);
          } else {
            kernels::attend(shape, {list, n}, kv, mine);
          }
        }
      });
}

void Decoder::mlp(const MlpWeights& weights, MatrixView<const float> x, MatrixView<float> y,
                  ExecutionContext& context) const {
  const size_t num_rows = x.rows();
  const size_t inner = config_.intermediate_size;
  const Arena::Scope scope(context.arena);
  const MatrixView<float> up =
      context.arena.take_matrix(num_rows, weights.gate_up != nullptr ? 2 * inner : inner);
  MatrixView<float> gate;
  MatrixView<float> values = up;
  if (weights.gate_up != nullptr) {
    weights.gate_up->forward(x, up, context);
    gate = up.cols(0, inner);
    values = up.cols(inner, inner);
  } else {
    weights.up->forward(x, up, context);
    if (weights.gate != nullptr) {
      gate = context.arena.take_matrix(num_rows, inner);
      weights.gate->forward(x, gate, context);
    }
  }
  context.pool.parallel_for(num_rows, kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      if (gate.data() != nullptr) {
        kernels::activate_and_multiply(spec_.activation, gate.row(r), values.row(r), inner, values.row(r));
      } else {
        kernels::activate(spec_.activation, values.row(r), inner, values.row(r));
      }
    }
  });
  weights.down->forward(values, y, context);
}

// Each token goes to the experts with the largest router scores; their outputs are added with the
// softmax of these scores as weights, in the order of the experts.
void Decoder::experts(const DecoderBlock& block, MatrixView<const float> x, MatrixView<float> y,
                      ExecutionContext& context) const {
  const size_t num_rows = x.rows();
  const size_t num_experts = block.mlps.size();
  const Arena::Scope scope(context.arena);
  const MatrixView<float> scores = context.arena.take_matrix(num_rows, num_experts);
  block.router->forward(x, scores, context);
  auto* const order = context.arena.take<size_t>(num_experts);
  for (size_t r = 0; r < num_rows; ++r) {
    const std::span<float> row = scores.row_span(r);
    for (size_t e = 0; e < num_experts; ++e) order[e] = e;
    std::partial_sort(order, order + spec_.experts_per_token, order + num_experts,
                      [&](size_t a, size_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
    const float largest = row[order[0]];
    float total = 0.f;
    for (size_t i = 0; i < spec_.experts_per_token; ++i) total += std::exp(row[order[i]] - largest);
    // Weights of the chosen experts, zero for the others.
    for (size_t i = 0; i < num_experts; ++i) {
      row[order[i]] = i < spec_.experts_per_token ? std::exp(row[order[i]] - largest) / total : 0.f;
    }
    std::fill_n(y.row(r), y.cols(), 0.f);
  }
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
    for (size_t i = 0; i < n; ++i) std::copy_n(x.row(rows[i]), x.cols(), in.row(i));
    mlp(block.mlps[e], in, out, context);
    for (size_t i = 0; i < n; ++i) {
      const float weight = scores.row(rows[i])[e];
      for (size_t c = 0; c < y.cols(); ++c) y.row(rows[i])[c] += weight * out.row(i)[c];
    }
  }
}

void Decoder::feed_forward(size_t layer, MatrixView<const float> x, MatrixView<float> y,
                           ExecutionContext& context) const {
  const DecoderBlock& block = weights_.blocks[layer];
  if (block.router != nullptr) {
    experts(block, x, y, context);
  } else {
    mlp(block.mlps.front(), x, y, context);
  }
}

void Decoder::head(const Batch& batch, MatrixView<const float> hidden, MatrixView<float> logits,
                   ExecutionContext& context) const {
  if (logits.rows() == 0) return;
  const Arena::Scope scope(context.arena);
  // Only the rows whose logits are wanted.
  const MatrixView<float> wanted = context.arena.take_matrix(logits.rows(), config_.hidden_size);
  size_t row = 0;
  size_t next = 0;
  for (const SequenceChunk& chunk : batch.chunks) {
    row += chunk.tokens.size();
    for (size_t i = row - chunk.num_logits; i < row; ++i) {
      std::copy_n(hidden.row(i), hidden.cols(), wanted.row(next++));
    }
  }
  if (weights_.final_norm != nullptr) weights_.final_norm->forward(wanted, wanted, context);
  if (weights_.project_out != nullptr) {
    const MatrixView<float> projected = context.arena.take_matrix(logits.rows(), spec_.embedding_size);
    weights_.project_out->forward(wanted, projected, context);
    weights_.head->forward(projected, logits, context);
  } else {
    weights_.head->forward(wanted, logits, context);
  }
  if (spec_.final_soft_cap <= 0.f) return;
  for (size_t r = 0; r < logits.rows(); ++r) {
    kernels::soft_cap(logits.row(r), spec_.final_soft_cap, logits.cols(), logits.row(r));
  }
}

}  // namespace nibble
