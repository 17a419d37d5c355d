#ifndef NIBBLE_KERNELS_ATTENTION_H_
#define NIBBLE_KERNELS_ATTENTION_H_

// Softmax attention of single query rows over cached keys and values, in one pass over blocks of
// tokens ("online softmax": Milakov & Gimelshein, arXiv:1805.02867; FlashAttention,
// arXiv:2205.14135). Long contexts are cut into pieces whose sums are merged in order, so that
// threads can share one row (Flash-Decoding).

#include <cstddef>
#include <span>

#include "nibble/base/cpu_target.h"
#include "nibble/kernels/attention_cache.h"

namespace nibble::kernels {

// Tokens per piece. Pieces start at multiples of it, whoever computes them: where a sum is cut does
// not depend on the number of threads or on how the prompt was cut.
inline constexpr size_t kAttentionPiece = 8 * kAttentionBlock;

struct AttentionShape {
  size_t head_dim = 0;        // of queries and keys
  size_t value_head_dim = 0;  // of values and the output
  float scale = 1.f;          // of the dot products: usually 1 / sqrt(head_dim)
  float soft_cap = 0.f;       // > 0: scores become cap * tanh(score / cap)
};

// One query of one head: it sees the tokens [first, last), at least one.
struct AttentionRow {
  const float* query;  // [head_dim]
  float* out;          // [value_head_dim]
  size_t first;
  size_t last;
  // ALiBi: slope * (distance to the last token) is taken off a score. 0: none.
  float alibi_slope = 0.f;
  const float* bias = nullptr;  // [last], added to the scores; null: none
};

// Keys and values of one head: blocks[b] + offset has those of the tokens b * kAttentionBlock and
// following, as head_block_layout() says.
struct AttentionBlocks {
  const std::byte* const* blocks;
  size_t offset;  // bytes
  KvCacheType type = KvCacheType::kF32;
};

// What some rows have seen of one piece.
struct AttentionPart {
  float* sums;     // [rows, value_head_dim]: sum of e^(score - largest) * value
  float* largest;  // [rows]: score
  float* total;    // [rows]: sum of e^(score - largest); 0 for a row that sees nothing of the piece
};
inline size_t attention_part_floats(const AttentionShape& shape, size_t num_rows) {
  return num_rows * (shape.value_head_dim + 2);
}
inline AttentionPart attention_part_at(const AttentionShape& shape, size_t num_rows, float* memory) {
  float* const largest = memory + num_rows * shape.value_head_dim;
  return {memory, largest, largest + num_rows};
}

// Rows that read a key or value together.
inline constexpr size_t kAttentionTileRows = 6;
// Tiles of them that take turns with a block of keys, and then of values.
inline constexpr size_t kAttentionTilesAtOnce = 8;

// Floats for a block of keys and values: for several tiles of rows it is turned to floats once.
inline size_t attention_widened_floats(const AttentionShape& shape, size_t num_rows) {
  return num_rows <= 2 * kAttentionTileRows ? 0 : kAttentionBlock * (shape.head_dim + shape.value_head_dim);
}

// Floats of scratch memory that attend() and attend_piece() need for this many rows.
inline size_t attention_scratch(const AttentionShape& shape, size_t num_rows) {
  return kAttentionTilesAtOnce * kAttentionTileRows * kAttentionBlock +
         attention_widened_floats(shape, num_rows) + attention_part_floats(shape, num_rows) + 2 * num_rows;
}

// All rows read the same head; they go through it block by block together, each for itself.
void attend(const AttentionShape& shape, std::span<const AttentionRow> rows, const AttentionBlocks& kv,
            float* scratch, CpuTarget target = cpu_target());

// The same in two steps. The pieces of a row may be computed in any order; `parts` are all that hold
// something of its tokens, in theirs. Gives the bits of attend().
void attend_piece(const AttentionShape& shape, std::span<const AttentionRow> rows, const AttentionBlocks& kv,
                  size_t piece, const AttentionPart& part, float* scratch, CpuTarget target = cpu_target());
void merge_parts(const AttentionShape& shape, std::span<const AttentionRow> rows,
                 std::span<const AttentionPart> parts, CpuTarget target = cpu_target());

// The same with all scores of a row at once and sums in double: the plain reference ("eager").
// scratch: [row.last - row.first] of the longest row.
void attend_reference(const AttentionShape& shape, std::span<const AttentionRow> rows,
                      const AttentionBlocks& kv, float* scratch);

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_ATTENTION_H_
