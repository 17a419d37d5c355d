// attend() of attention.h, compiled once per instruction set.

#include "nibble/kernels/attention_cache-inl.h"
#include "nibble/kernels/attention_tile-inl.h"

namespace nibble::kernels::NIBBLE_NAMESPACE {

// The scratch memory of attend() and attend_piece(), one behind the other.
struct AttentionScratch {
  AttentionScratch(const AttentionShape& shape, size_t num_rows, float* memory)
      : p(memory),
        widened(p + kAttentionTilesAtOnce * kAttentionTileRows * kAttentionBlock),
        part(attention_part_at(shape, num_rows, widened + attention_widened_floats(shape, num_rows))),
        largest(part.sums + attention_part_floats(shape, num_rows)),
        total(largest + num_rows) {}

  float* p;        // [kAttentionTilesAtOnce * kAttentionTileRows][kAttentionBlock]
  float* widened;  // keys and values of a block as floats
  AttentionPart part;
  float* largest;  // [num_rows], of the pieces so far
  float* total;    // the same
};

// Tiles that go through the keys of a block one after the other, and then through its values: either fit the
// first-level cache, with the weights of all rows, but not both.
template <class E>
inline void attend_tiles(const AttentionShape& shape, const HeadBlock<E>& block, AttentionTile* tiles,
                         size_t num_tiles) {
  for (size_t i = 0; i < num_tiles; ++i) weigh_tile(shape, block, tiles[i]);
  for (size_t i = 0; i < num_tiles; ++i) sum_tile(shape, block, tiles[i]);
}

template <class E>
inline void attend_block(const AttentionShape& shape, std::span<const AttentionRow> rows,
                         const HeadBlock<E>& block, const AttentionPart& part, float* p) {
  AttentionTile tiles[kAttentionTilesAtOnce];
  size_t num_tiles = 0;  // that are full
  const size_t end = block.start + kAttentionBlock;
  for (size_t r = 0; r < rows.size(); ++r) {
    const AttentionRow& row = rows[r];
    if (row.last <= block.start || row.first >= end) continue;
    AttentionTile& tile = tiles[num_tiles];
    const size_t i = tile.size++;
    tile.rows[i] = &row;
    tile.sums[i] = part.sums + r * shape.value_head_dim;
    tile.largest[i] = part.largest + r;
    tile.total[i] = part.total + r;
    tile.p[i] = p + (num_tiles * kTileRows + i) * kAttentionBlock;
    tile.first[i] = row.first > block.start ? row.first - block.start : 0;
    tile.last[i] = row.last < end ? row.last - block.start : kAttentionBlock;
    if (tile.size < kTileRows) continue;
    if (++num_tiles < kAttentionTilesAtOnce) continue;
    attend_tiles(shape, block, tiles, num_tiles);
    for (AttentionTile& done : tiles) done.size = 0;
    num_tiles = 0;
  }
  if (num_tiles < kAttentionTilesAtOnce && tiles[num_tiles].size > 0) ++num_tiles;
  attend_tiles(shape, block, tiles, num_tiles);
}

// Blocks of elements E. For many rows they are turned to floats once, which changes no bit.
template <class E>
inline void attend_blocks(const AttentionShape& shape, std::span<const AttentionRow> rows,
                          const AttentionBlocks& kv, size_t begin_block, size_t end_block,
                          const AttentionPart& part, const AttentionScratch& scratch) {
  const HeadBlockLayout at = head_block_layout(kv.type, shape.head_dim, shape.value_head_dim);
  const bool scaled = kv.type == KvCacheType::kInt8;
  for (size_t b = begin_block; b < end_block; ++b) {
    const std::byte* const memory = kv.blocks[b] + kv.offset;
    const HeadBlock<E> block = {
        reinterpret_cast<const E*>(memory + at.keys),
        reinterpret_cast<const E*>(memory + at.values),
        scaled ? reinterpret_cast<const float*>(memory + at.key_scales) : nullptr,
        scaled ? reinterpret_cast<const float*>(memory + at.value_scales) : nullptr,
        b * kAttentionBlock,
    };
    if (sizeof(E) == sizeof(float) || attention_widened_floats(shape, rows.size()) == 0) {
      attend_block(shape, rows, block, part, scratch.p);
      continue;
    }
    float* const keys = scratch.widened;
    float* const values = keys + kAttentionBlock * shape.head_dim;
    widen(block.keys, kAttentionBlock * shape.head_dim, keys);
    widen(block.values, kAttentionBlock * shape.value_head_dim, values);
    attend_block(shape, rows,
                 HeadBlock<float>{keys, values, block.key_scales, block.value_scales, block.start}, part,
                 scratch.p);
  }
}

inline void attend_piece_with(const AttentionShape& shape, std::span<const AttentionRow> rows,
                              const AttentionBlocks& kv, size_t piece, const AttentionPart& part,
                              const AttentionScratch& scratch) {
  size_t begin = (piece + 1) * kAttentionPiece;
  size_t end = piece * kAttentionPiece;
  for (size_t r = 0; r < rows.size(); ++r) {
    part.largest[r] = -HUGE_VALF;
    part.total[r] = 0.f;
    for (size_t d = 0; d < shape.value_head_dim; ++d) part.sums[r * shape.value_head_dim + d] = 0.f;
    begin = rows[r].first < begin ? rows[r].first : begin;
    end = rows[r].last > end ? rows[r].last : end;
  }
  if (begin < piece * kAttentionPiece) begin = piece * kAttentionPiece;
  if (end > (piece + 1) * kAttentionPiece) end = (piece + 1) * kAttentionPiece;
  if (begin >= end) return;
  const size_t begin_block = begin / kAttentionBlock;
  const size_t end_block = (end + kAttentionBlock - 1) / kAttentionBlock;
  if (kv.type == KvCacheType::kF32) {
    attend_blocks<float>(shape, rows, kv, begin_block, end_block, part, scratch);
  } else if (kv.type == KvCacheType::kF16) {
    attend_blocks<uint16_t>(shape, rows, kv, begin_block, end_block, part, scratch);
  } else {
    attend_blocks<int8_t>(shape, rows, kv, begin_block, end_block, part, scratch);
  }
}

inline void attend_piece(const AttentionShape& shape, std::span<const AttentionRow> rows,
                         const AttentionBlocks& kv, size_t piece, const AttentionPart& part, float* scratch) {
  attend_piece_with(shape, rows, kv, piece, part, AttentionScratch(shape, rows.size(), scratch));
}

// Adds row r of a later part to what `out`, `largest` and `total` hold of the earlier ones.
inline void merge_row(const AttentionShape& shape, const AttentionPart& part, size_t r, float* out,
                      float* largest, float* total) {
  const size_t dim = shape.value_head_dim;
  const float* const sums = part.sums + r * dim;
  if (part.total[r] == 0.f) return;
  if (*total == 0.f) {
    for (size_t d = 0; d < dim; ++d) out[d] = sums[d];
    *largest = part.largest[r];
    *total = part.total[r];
    return;
  }
  const float new_largest = part.largest[r] > *largest ? part.largest[r] : *largest;
  const float keep = std::exp(*largest - new_largest);
  const float take = std::exp(part.largest[r] - new_largest);
  for (size_t d = 0; d < dim; d += kLanes) {
    const size_t n = dim - d;
    store_n(out + d, fmadd(load_n(sums + d, n), set1(take), mul(load_n(out + d, n), set1(keep))), n);
  }
  *total = part.total[r] * take + *total * keep;
  *largest = new_largest;
}

inline void divide_row(const AttentionShape& shape, float total, float* out) {
  const F32 inverse = set1(1.f / total);
  for (size_t d = 0; d < shape.value_head_dim; d += kLanes) {
    const size_t n = shape.value_head_dim - d;
    store_n(out + d, mul(load_n(out + d, n), inverse), n);
  }
}

inline void merge_parts(const AttentionShape& shape, std::span<const AttentionRow> rows,
                        std::span<const AttentionPart> parts) {
  for (size_t r = 0; r < rows.size(); ++r) {
    float largest = -HUGE_VALF;
    float total = 0.f;
    for (size_t i = 0; i < parts.size(); ++i) merge_row(shape, parts[i], r, rows[r].out, &largest, &total);
    divide_row(shape, total, rows[r].out);
  }
}

inline void attend(const AttentionShape& shape, std::span<const AttentionRow> rows, const AttentionBlocks& kv,
                   float* memory) {
  const AttentionScratch scratch(shape, rows.size(), memory);
  size_t begin = static_cast<size_t>(-1);
  size_t end = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    scratch.total[r] = 0.f;
    begin = rows[r].first < begin ? rows[r].first : begin;
    end = rows[r].last > end ? rows[r].last : end;
  }
  for (size_t piece = begin / kAttentionPiece; piece * kAttentionPiece < end; ++piece) {
    attend_piece_with(shape, rows, kv, piece, scratch.part, scratch);
    for (size_t r = 0; r < rows.size(); ++r) {
      merge_row(shape, scratch.part, r, rows[r].out, scratch.largest + r, scratch.total + r);
    }
  }
  for (size_t r = 0; r < rows.size(); ++r) divide_row(shape, scratch.total[r], rows[r].out);
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
