#ifndef NIBBLE_KERNELS_ATTENTION_H_
#define NIBBLE_KERNELS_ATTENTION_H_

// Softmax attention of single query rows over cached keys and values, in one pass over blocks of
// tokens ("online softmax": Milakov & Gimelshein, arXiv:1805.02867; FlashAttention,
// arXiv:2205.14135).

#include <cstddef>
#include <span>

#include "nibble/base/cpu_target.h"

namespace nibble::kernels {

// Tokens per block of the cache. Blocks start at multiples of it, so that a query meets the same
// blocks in the same order however the prompt was cut: its result is the same in every bit.
inline constexpr size_t kAttentionBlock = 64;

struct AttentionShape {
  size_t head_dim = 0;        // of queries and keys
  size_t value_head_dim = 0;  // of values and the output
  float scale = 1.f;          // of the dot products: usually 1 / sqrt(head_dim)
  float soft_cap = 0.f;       // > 0: scores become cap * tanh(score / cap)
};

// One query of one head: it sees the tokens [first, last).
struct AttentionRow {
  const float* query;  // [head_dim]
  float* out;          // [value_head_dim]
  size_t first;
  size_t last;
  // ALiBi: slope * (distance to the last token) is taken off a score. 0: none.
  float alibi_slope = 0.f;
};

// Keys and values of one head. blocks[b] is the memory of tokens b * kAttentionBlock and following;
// at key_offset it holds the keys transposed, [head_dim][kAttentionBlock], so that a vector holds
// one channel of many tokens and scores need no horizontal sums; at value_offset the values,
// [kAttentionBlock][value_head_dim].
struct AttentionBlocks {
  const float* const* blocks;
  size_t key_offset;
  size_t value_offset;
};

// Rows that read a key or value together.
inline constexpr size_t kAttentionTileRows = 6;

// Floats of scratch memory that attend() needs for this many rows.
inline size_t attention_scratch(size_t num_rows) {
  return 2 * num_rows + kAttentionTileRows * kAttentionBlock;
}

// All rows read the same head; they go through it block by block together, each for itself.
void attend(const AttentionShape& shape, std::span<const AttentionRow> rows, const AttentionBlocks& kv,
            float* scratch, CpuTarget target = cpu_target());

// The same with all scores of a row at once and sums in double: the plain reference ("eager").
// scratch: [row.last - row.first] of the longest row.
void attend_reference(const AttentionShape& shape, std::span<const AttentionRow> rows,
                      const AttentionBlocks& kv, float* scratch);

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_ATTENTION_H_
