// attend_tokens() of block_steps.h: what happens between the projections of an attention layer.

#include <algorithm>

#include "nibble/kernels/attention.h"
#include "nibble/kernels/elementwise.h"
#include "nibble/models/block_steps.h"

namespace nibble {
namespace {

using kernels::AttentionPart;
using kernels::AttentionRow;
using kernels::kAttentionPiece;

// Rows that go through the cache together, so that a block of keys and values is read once for all of them.
constexpr size_t kRowsPerTile = 2 * kernels::kAttentionTilesAtOnce * kernels::kAttentionTileRows;
constexpr size_t kMostTokensPerTile = 64;
constexpr size_t kMergedFloatsPerTask = 1 << 16;
constexpr size_t kMostPartFloats = 1 << 22;  // of pieces that wait to be merged

// From the rows of each key/value head together (its queries, its key, its value) to all queries, all keys,
// all values.
void gather_heads(const PretrainedConfig& config, MatrixView<float> qkv, ExecutionContext& context) {
  const size_t heads = config.num_key_value_heads;
  if (heads == 1) return;  // they are the same then
  const size_t key = config.head_dim;
  const size_t queries = config.num_attention_heads / heads * key;
  const Arena::Scope scope(context.arena);
  float* const copies = context.arena.take<float>(context.pool.num_threads() * qkv.cols());
  context.pool.parallel_for(qkv.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t worker) {
    float* const copy = copies + worker * qkv.cols();
    for (size_t r = begin; r < end; ++r) {
      std::copy_n(qkv.row(r), qkv.cols(), copy);
      for (size_t head = 0; head < heads; ++head) {
        const float* const from = copy + head * (queries + 2 * key);
        std::copy_n(from, queries, qkv.row(r) + head * queries);
        std::copy_n(from + queries, key, qkv.row(r) + heads * queries + head * key);
        std::copy_n(from + queries + key, key, qkv.row(r) + heads * (queries + key) + head * key);
      }
    }
  });
}

// Rotates pairs (x[2i], x[2i + 1]).
void rotate_pairs(float* x, const float* cos, const float* sin, size_t half) {
  for (size_t i = 0; i < half; ++i) {
    const float a = x[2 * i];
    const float b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

void rotate_and_store(const AttentionStep& step, const TokenBatch& batch, MatrixView<float> q,
                      MatrixView<float> k, MatrixView<const float> v, ExecutionContext& context) {
  const DecoderBlock& block = step.block;
  const size_t head_dim = step.config.head_dim;
  const size_t value_dim = step.config.value_head_dim;
  const size_t not_rotated = head_dim - step.config.rope_head_dim;
  const MatrixView<float>& cos = block.sliding_rope ? batch.cos_sliding : batch.cos;
  const MatrixView<float>& sin = block.sliding_rope ? batch.sin_sliding : batch.sin;
  const auto rotate_row = [&](MatrixView<float> x, size_t r) {
    for (size_t c = not_rotated; c < x.cols(); c += head_dim) {
      if (step.spec.names.rotary_interleaved) {
        rotate_pairs(x.row(r) + c, cos.row(r), sin.row(r), cos.cols());
      } else {
        kernels::rotate_half(x.row(r) + c, cos.row(r), sin.row(r), cos.cols());
      }
    }
  };
  if (block.rotates && cos.cols() > 0) {
    context.pool.parallel_for(batch.rows.size(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        rotate_row(q, r);
        rotate_row(k, r);
      }
    });
  }
  // Threads share the heads: neighbouring tokens of one head lie in the same cache lines. A few tokens are
  // less work than waking threads up.
  const size_t heads = step.config.num_key_value_heads;
  const size_t grain = batch.rows.size() < kRowsPerTask ? heads : 1;
  context.pool.parallel_for(heads, grain, [&](size_t begin, size_t end, size_t) {
    size_t r = 0;
    for (const SequenceChunk& chunk : batch.chunks) {
      for (size_t i = 0; i < chunk.tokens.size(); ++i, ++r) {
        for (size_t head = begin; head < end; ++head) {
          chunk.cache->write(step.cache_layer, head, batch.rows[r].position, k.row(r) + head * head_dim,
                             v.row(r) + head * value_dim);
        }
      }
    }
  });
}

// Query rows of one sequence that read one head together.
struct QueryTile {
  size_t chunk;
  size_t kv_head;
  size_t head_begin;  // [head_begin, head_end) of the queries' heads
  size_t head_end;
  size_t row_begin;  // [row_begin, row_end) of the batch
  size_t row_end;
  size_t first_piece;  // of the tokens that its rows see
  size_t last_piece;
  size_t first_part;  // number of its first piece among those of all tiles
};

// One layer's attention, cut into tiles.
struct AttentionWork {
  const AttentionStep& step;
  const TokenBatch& batch;
  const MatrixView<const float> q;
  const MatrixView<float> out;
  const size_t group;   // query heads that read one head of keys
  size_t max_rows = 0;  // of a tile
  const kernels::AttentionShape shape;
  std::span<const QueryTile> tiles = {};

  size_t first_token(size_t row) const {
    const size_t end = batch.rows[row].position + 1;
    const size_t window = step.block.window;
    return window > 0 && end > window ? end - window : 0;
  }
  kernels::AttentionBlocks blocks(const QueryTile& tile) const {
    return batch.chunks[tile.chunk].cache->head(step.cache_layer, tile.kv_head);
  }
};

// Tiles in the order of heads, so that one thread stays with the keys of a head.
std::span<const QueryTile> cut_into_tiles(const AttentionWork& work, ExecutionContext& context) {
  const size_t kv_heads = work.step.config.num_key_value_heads;
  const size_t tile_tokens = work.max_rows / work.group;
  size_t per_head = 0;
  for (const SequenceChunk& chunk : work.batch.chunks) {
    per_head += (chunk.tokens.size() + tile_tokens - 1) / tile_tokens;
  }
  // Where one head of keys serves many of queries there may be fewer tiles than threads.
  const size_t threads = context.pool.num_threads();
  const size_t splits = std::clamp<size_t>(threads / (per_head * kv_heads), 1, work.group);
  const size_t heads_at_once = (work.group + splits - 1) / splits;
  auto* const tiles = context.arena.take<QueryTile>(per_head * kv_heads * splits);
  size_t n = 0;
  size_t parts = 0;
  for (size_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
    size_t end = 0;
    for (size_t c = 0; c < work.batch.chunks.size(); ++c) {
      size_t row = end;
      end += work.batch.chunks[c].tokens.size();
      for (; row < end; row += tile_tokens) {
        const size_t row_end = std::min(row + tile_tokens, end);
        const size_t first_piece = work.first_token(row) / kAttentionPiece;
        const size_t last_piece = work.batch.rows[row_end - 1].position / kAttentionPiece;
        const size_t first_head = kv_head * work.group;
        for (size_t head = 0; head < work.group; head += heads_at_once) {
          const size_t head_end = std::min(head + heads_at_once, work.group);
          tiles[n++] = {c,    kv_head, first_head + head, first_head + head_end,
                        row,  row_end, first_piece,       last_piece,
                        parts};
          parts += last_piece + 1 - first_piece;
        }
      }
    }
  }
  return {tiles, n};
}

std::span<const AttentionRow> rows_of(const AttentionWork& work, const QueryTile& tile, AttentionRow* list) {
  const size_t head_dim = work.shape.head_dim;
  const size_t value_dim = work.shape.value_head_dim;
  size_t n = 0;
  for (size_t r = tile.row_begin; r < tile.row_end; ++r) {
    for (size_t head = tile.head_begin; head < tile.head_end; ++head) {
      list[n] = {work.q.row(r) + head * head_dim, work.out.row(r) + head * value_dim, work.first_token(r),
                 work.batch.rows[r].position + 1};
      if (work.batch.score_bias.rows() > 0) {
        list[n].bias = work.batch.score_bias.row(head);
      } else if (!work.step.spec.alibi_slopes.empty()) {
        list[n].alibi_slope = work.step.spec.alibi_slopes[head];
      }
      ++n;
    }
  }
  return {list, n};
}

// Each tile by one thread.
void attend_tiles(const AttentionWork& work, ExecutionContext& context) {
  size_t scratch_floats = kernels::attention_scratch(work.shape, work.max_rows);
  if (work.step.eager) {
    for (const SequenceChunk& chunk : work.batch.chunks) {
      scratch_floats = std::max(scratch_floats, chunk.cache->size() + chunk.tokens.size());
    }
  }
  const size_t workers = context.pool.num_threads();
  auto* const scratch = context.arena.take<float>(workers * scratch_floats);
  auto* const lists = context.arena.take<AttentionRow>(workers * work.max_rows);
  context.pool.parallel_for(work.tiles.size(), 1, [&](size_t begin, size_t end, size_t worker) {
    float* const mine = scratch + worker * scratch_floats;
    for (size_t i = begin; i < end; ++i) {
      const QueryTile& tile = work.tiles[i];
      const auto rows = rows_of(work, tile, lists + worker * work.max_rows);
      if (work.step.eager) {
        kernels::attend_reference(work.shape, rows, work.blocks(tile), mine);
      } else {
        kernels::attend(work.shape, rows, work.blocks(tile), mine);
      }
    }
  });
}

// Few tiles that see many tokens: threads share the pieces, which are merged afterwards.
void attend_pieces(const AttentionWork& work, size_t num_parts, ExecutionContext& context) {
  const size_t workers = context.pool.num_threads();
  const size_t scratch_floats = kernels::attention_scratch(work.shape, work.max_rows);
  const size_t part_floats = kernels::attention_part_floats(work.shape, work.max_rows);
  auto* const scratch = context.arena.take<float>(workers * scratch_floats);
  auto* const lists = context.arena.take<AttentionRow>(workers * work.max_rows);
  auto* const parts = context.arena.take<AttentionPart>(num_parts);
  auto* const memory = context.arena.take<float>(num_parts * part_floats);
  context.pool.parallel_for(num_parts, 1, [&](size_t begin, size_t end, size_t worker) {
    for (size_t i = begin; i < end; ++i) {
      const auto next = std::upper_bound(work.tiles.begin(), work.tiles.end(), i,
                                         [](size_t part, const QueryTile& t) { return part < t.first_part; });
      const QueryTile& tile = *(next - 1);
      const auto rows = rows_of(work, tile, lists + worker * work.max_rows);
      parts[i] = kernels::attention_part_at(work.shape, rows.size(), memory + i * part_floats);
      kernels::attend_piece(work.shape, rows, work.blocks(tile), tile.first_piece + i - tile.first_part,
                            parts[i], scratch + worker * scratch_floats);
    }
  });
  // Merging is little work: a loop of all threads would cost more up to some thousand rows.
  const size_t grain =
      std::max<size_t>(1, kMergedFloatsPerTask * work.tiles.size() / (num_parts * part_floats));
  context.pool.parallel_for(work.tiles.size(), grain, [&](size_t begin, size_t end, size_t worker) {
    for (size_t i = begin; i < end; ++i) {
      const QueryTile& tile = work.tiles[i];
      const auto rows = rows_of(work, tile, lists + worker * work.max_rows);
      kernels::merge_parts(work.shape, rows,
                           {parts + tile.first_part, tile.last_piece + 1 - tile.first_piece});
    }
  });
}

void attend(const AttentionStep& step, const TokenBatch& batch, MatrixView<const float> q,
            MatrixView<float> out, ExecutionContext& context) {
  const size_t group = step.config.num_attention_heads / step.config.num_key_value_heads;
  AttentionWork work = {step,
                        batch,
                        q,
                        out,
                        group,
                        0,
                        {.head_dim = step.config.head_dim,
                         .value_head_dim = step.config.value_head_dim,
                         .scale = step.spec.attention_scale,
                         .soft_cap = step.spec.attention_soft_cap}};
  const Arena::Scope scope(context.arena);
  for (const SequenceChunk& chunk : batch.chunks) {
    work.max_rows =
        std::max(work.max_rows, group * std::min(attention_tile_tokens(group), chunk.tokens.size()));
  }
  work.tiles = cut_into_tiles(work, context);
  const QueryTile& last = work.tiles.back();
  const size_t num_parts = last.first_part + last.last_piece + 1 - last.first_piece;
  // Below four tasks for each thread some threads wait for others.
  const bool few_tiles =
      work.tiles.size() < 4 * context.pool.num_threads() &&
      num_parts * kernels::attention_part_floats(work.shape, work.max_rows) <= kMostPartFloats;
  if (few_tiles && num_parts > work.tiles.size() && context.pool.num_threads() > 1 && !step.eager) {
    attend_pieces(work, num_parts, context);
  } else {
    attend_tiles(work, context);
  }
}

}  // namespace

size_t attention_tile_tokens(size_t group) {
  return std::clamp<size_t>(kRowsPerTile / group, 1, kMostTokensPerTile);
}

void place_keys_and_values(const PretrainedConfig& config, MatrixView<const float> kv,
                           MatrixView<const float> rotated, MatrixView<float> qkv,
                           ExecutionContext& context) {
  const size_t heads = config.num_attention_heads;
  const size_t value_dim = config.value_head_dim;
  const size_t rope_dim = config.rope_head_dim;
  const size_t plain_dim = config.head_dim - rope_dim;
  const MatrixView<float> keys = qkv.cols(heads * config.head_dim, heads * config.head_dim);
  const MatrixView<float> values = qkv.cols(2 * heads * config.head_dim, heads * value_dim);
  context.pool.parallel_for(qkv.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      for (size_t head = 0; head < heads; ++head) {
        const float* const from = kv.row(r) + head * (plain_dim + value_dim);
        float* const key = keys.row(r) + head * config.head_dim;
        std::copy_n(from, plain_dim, key);
        std::copy_n(rotated.row(r), rope_dim, key + plain_dim);
        std::copy_n(from + plain_dim, value_dim, values.row(r) + head * value_dim);
      }
    }
  });
}

void attend_tokens(const AttentionStep& step, const TokenBatch& batch, MatrixView<float> qkv,
                   MatrixView<float> out, ExecutionContext& context) {
  const size_t q_size = step.config.num_attention_heads * step.config.head_dim;
  const size_t k_size = step.config.num_key_value_heads * step.config.head_dim;
  const MatrixView<float> q = qkv.cols(0, q_size);
  const MatrixView<float> k = qkv.cols(q_size, k_size);
  const MatrixView<float> v = qkv.cols(q_size + k_size, qkv.cols() - q_size - k_size);
  if (!step.spec.names.block.qkv.empty() && step.spec.names.qkv_by_head)
    gather_heads(step.config, qkv, context);
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

}  // namespace nibble
