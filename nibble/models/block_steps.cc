#include "nibble/models/block_steps.h"

#include <algorithm>
#include <cmath>

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

void rotate_and_store(const AttentionStep& step, const TokenBatch& batch, MatrixView<float> q,
                      MatrixView<float> k, MatrixView<const float> v, ExecutionContext& context) {
  const DecoderBlock& block = step.block;
  const size_t head_dim = step.config.head_dim;
  const MatrixView<float>& cos = block.sliding_rope ? batch.cos_sliding : batch.cos;
  const MatrixView<float>& sin = block.sliding_rope ? batch.sin_sliding : batch.sin;
  const auto rotate_row = [&](MatrixView<float> x, size_t r) {
    for (size_t c = 0; c < x.cols(); c += head_dim) {
      kernels::rotate_half(x.row(r) + c, cos.row(r), sin.row(r), cos.cols());
    }
  };
  if (cos.cols() > 0) {
    context.pool.parallel_for(batch.rows.size(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        rotate_row(q, r);
        rotate_row(k, r);
      }
    });
  }
  // Threads share the heads: neighbouring tokens of one head lie in the same cache lines.
  context.pool.parallel_for(step.config.num_key_value_heads, 1, [&](size_t begin, size_t end, size_t) {
    size_t r = 0;
    for (const SequenceChunk& chunk : batch.chunks) {
      for (size_t i = 0; i < chunk.tokens.size(); ++i, ++r) {
        for (size_t head = begin; head < end; ++head) {
          chunk.cache->write(step.cache_layer, head, batch.rows[r].position, k.row(r) + head * head_dim,
                             v.row(r) + head * head_dim);
        }
      }
    }
  });
}

void attend(const AttentionStep& step, const TokenBatch& batch, MatrixView<const float> q,
            MatrixView<float> out, ExecutionContext& context) {
  const size_t head_dim = step.config.head_dim;
  const size_t group = step.config.num_attention_heads / step.config.num_key_value_heads;
  const size_t window = step.block.window;
  const kernels::AttentionShape shape = {.head_dim = head_dim,
                                         .value_head_dim = head_dim,
                                         .scale = step.spec.attention_scale,
                                         .soft_cap = step.spec.attention_soft_cap};
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
  const size_t scratch_floats = step.eager ? longest : kernels::attention_scratch(max_rows);
  const size_t workers = context.pool.num_threads();
  auto* const scratch = context.arena.take<float>(workers * scratch_floats);
  auto* const attention_rows = context.arena.take<kernels::AttentionRow>(workers * max_rows);

  // Tasks in the order of heads, so that one thread stays with the keys of a head.
  context.pool.parallel_for(
      num_tiles * step.config.num_key_value_heads, 1, [&](size_t begin, size_t end, size_t worker) {
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
              const float slope = step.spec.alibi_slopes.empty() ? 0.f : step.spec.alibi_slopes[head];
              list[n++] = {q.row(r) + head * head_dim, out.row(r) + head * head_dim, first, last, slope};
            }
          }
          const kernels::AttentionBlocks kv = batch.chunks[c].cache->head(step.cache_layer, kv_head);
          float* const mine = scratch + worker * scratch_floats;
          if (step.eager) {
            kernels::attend_reference(shape, {list, n}, kv, mine);
          } else {
            kernels::attend(shape, {list, n}, kv, mine);
          }
        }
      });
}

}  // namespace

TokenBatch make_token_batch(std::span<const SequenceChunk> chunks, const std::optional<RotaryEmbedding>& rope,
                            const std::optional<RotaryEmbedding>& rope_sliding, ExecutionContext& context) {
  size_t num_rows = 0;
  for (const SequenceChunk& chunk : chunks) num_rows += chunk.tokens.size();
  TokenBatch batch;
  batch.chunks = chunks;
  auto* const rows = context.arena.take<TokenBatch::Row>(num_rows);
  size_t r = 0;
  for (const SequenceChunk& chunk : chunks) {
    const size_t start = chunk.cache->size();
    const size_t length = std::max(chunk.known_length, start + chunk.tokens.size());
    for (size_t i = 0; i < chunk.tokens.size(); ++i) rows[r++] = {chunk.tokens[i], start + i, length};
  }
  batch.rows = {rows, num_rows};
  const auto make_angles = [&](const RotaryEmbedding& angles_of, MatrixView<float>& cos,
                               MatrixView<float>& sin) {
    cos = context.arena.take_matrix(num_rows, angles_of.rotary_dims() / 2);
    sin = context.arena.take_matrix(num_rows, angles_of.rotary_dims() / 2);
    for (size_t i = 0; i < num_rows; ++i) {
      angles_of.angles(rows[i].position, rows[i].sequence_length, cos.row(i), sin.row(i));
    }
  };
  if (rope) make_angles(*rope, batch.cos, batch.sin);
  if (rope_sliding) make_angles(*rope_sliding, batch.cos_sliding, batch.sin_sliding);
  return batch;
}

void embed_tokens(const DecoderSpec& spec, const DecoderWeights& weights, const TokenBatch& batch,
                  MatrixView<float> hidden, ExecutionContext& context) {
  const Arena::Scope scope(context.arena);
  const MatrixView<float> embedded = weights.project_in == nullptr
                                         ? hidden
                                         : context.arena.take_matrix(batch.rows.size(), spec.embedding_size);
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    copy_row(weights.embedding, static_cast<size_t>(batch.rows[r].token), spec.embedding_scale,
             embedded.row_span(r));
  }
  if (weights.project_in != nullptr) weights.project_in->forward(embedded, hidden, context);
  if (weights.positions.bytes.empty()) return;
  float* const position = context.arena.take<float>(hidden.cols());
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    copy_row(weights.positions, batch.rows[r].position + spec.names.position_offset, 1.f,
             {position, hidden.cols()});
    kernels::add(position, hidden.cols(), hidden.row(r));
  }
}

void attend_tokens(const AttentionStep& step, const TokenBatch& batch, MatrixView<float> qkv,
                   MatrixView<float> out, ExecutionContext& context) {
  const size_t q_size = step.config.num_attention_heads * step.config.head_dim;
  const size_t kv_size = step.config.num_key_value_heads * step.config.head_dim;
  const MatrixView<float> q = qkv.cols(0, q_size);
  const MatrixView<float> k = qkv.cols(q_size, kv_size);
  const MatrixView<float> v = qkv.cols(q_size + kv_size, kv_size);
  if (const float limit = step.spec.clip_qkv; limit > 0.f) {
    for (size_t r = 0; r < qkv.rows(); ++r) {
      for (float& value : qkv.row_span(r)) value = std::clamp(value, -limit, limit);
    }
  }
  if (step.block.q_norm != nullptr) step.block.q_norm->forward(q, q, context);
  if (step.block.k_norm != nullptr) step.block.k_norm->forward(k, k, context);
  rotate_and_store(step, batch, q, k, v, context);
  attend(step, batch, q, out, context);
}

void activate_rows(kernels::Activation activation, MatrixView<const float> gate, MatrixView<float> values,
                   ExecutionContext& context) {
  context.pool.parallel_for(values.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      if (gate.data() != nullptr) {
        kernels::activate_and_multiply(activation, gate.row(r), values.row(r), values.cols(), values.row(r));
      } else {
        kernels::activate(activation, values.row(r), values.cols(), values.row(r));
      }
    }
  });
}

void route_tokens(size_t experts_per_token, MatrixView<float> scores, ExecutionContext& context) {
  const Arena::Scope scope(context.arena);
  const size_t num_experts = scores.cols();
  auto* const order = context.arena.take<size_t>(num_experts);
  for (size_t r = 0; r < scores.rows(); ++r) {
    const std::span<float> row = scores.row_span(r);
    for (size_t e = 0; e < num_experts; ++e) order[e] = e;
    std::partial_sort(order, order + experts_per_token, order + num_experts,
                      [&](size_t a, size_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
    const float largest = row[order[0]];
    float total = 0.f;
    for (size_t i = 0; i < experts_per_token; ++i) total += std::exp(row[order[i]] - largest);
    for (size_t i = 0; i < num_experts; ++i) {
      row[order[i]] = i < experts_per_token ? std::exp(row[order[i]] - largest) / total : 0.f;
    }
  }
}

void add_rows(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) {
  context.pool.parallel_for(x.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) kernels::add(x.row(r), x.cols(), y.row(r));
  });
}

}  // namespace nibble
