// attend() of attention.h, compiled once per instruction set.

namespace nibble::kernels::NIBBLE_NAMESPACE {

// Rows go through a block of tokens in tiles: a tile of sums fills the registers, so that each key and
// value that is loaded is used for all its rows. In what order a row adds up does not depend on them.
#if NIBBLE_LANES == 16
inline constexpr size_t kTileVectors = 4;
#else
inline constexpr size_t kTileVectors = 2;
#endif
inline constexpr size_t kTileRows = kLanes == 1 ? 2 : kAttentionTileRows;
static_assert(kTileRows <= kAttentionTileRows);

// Some rows, what they have seen so far, and their part of the scratch memory.
struct AttentionTile {
  const AttentionRow* rows[kTileRows];
  float* largest[kTileRows];  // score
  float* total[kTileRows];    // sum of e^(score - largest); `out` holds the sum of values weighted so
  float* p[kTileRows];        // [kAttentionBlock]: scores, then weights
  size_t first[kTileRows];    // slots of the block that a row sees: [first, last)
  size_t last[kTileRows];
  float keep[kTileRows];  // factor of what was seen before
  size_t size = 0;
};

// p[j] = scale * (query . key j), for all tokens of a block and R rows.
template <size_t R>
inline void tile_scores(const AttentionShape& shape, const AttentionTile& tile, size_t from,
                        const float* keys) {
  constexpr size_t V = R == 1 && kLanes < 16 ? 4 : kTileVectors;  // of one row four hide the latency
  const F32 scale = set1(shape.scale);
  for (size_t j = 0; j < kAttentionBlock; j += V * kLanes) {
    F32 sums[R][V];
    NIBBLE_UNROLL
    for (size_t r = 0; r < R; ++r) {
      NIBBLE_UNROLL
      for (size_t v = 0; v < V; ++v) sums[r][v] = set1(0.f);
    }
    for (size_t d = 0; d < shape.head_dim; ++d) {
      F32 key[V];
      NIBBLE_UNROLL
      for (size_t v = 0; v < V; ++v) key[v] = load(keys + d * kAttentionBlock + j + v * kLanes);
      NIBBLE_UNROLL
      for (size_t r = 0; r < R; ++r) {
        const F32 q = set1(tile.rows[from + r]->query[d]);
        NIBBLE_UNROLL
        for (size_t v = 0; v < V; ++v) sums[r][v] = fmadd(q, key[v], sums[r][v]);
      }
    }
    NIBBLE_UNROLL
    for (size_t r = 0; r < R; ++r) {
      NIBBLE_UNROLL
      for (size_t v = 0; v < V; ++v) store(tile.p[from + r] + j + v * kLanes, mul(sums[r][v], scale));
    }
  }
}

// out = out * keep + sum of p[j] * value j, for slots [first, last) and channels [d, dim) of one row.
inline void add_values(const AttentionShape& shape, const float* p, const float* values, size_t first,
                       size_t last, float keep, size_t d, float* out) {
  const size_t dim = shape.value_head_dim;
  for (; d < dim; d += 2 * kLanes) {
    const size_t n0 = dim - d;
    const size_t n1 = n0 > kLanes ? n0 - kLanes : 0;
    F32 sum0 = mul(load_n(out + d, n0), set1(keep));
    F32 sum1 = n1 > 0 ? mul(load_n(out + d + kLanes, n1), set1(keep)) : set1(0.f);
    for (size_t j = first; j < last; ++j) {
      const float* const v = values + j * dim + d;
      const F32 weight = set1(p[j]);
      sum0 = fmadd(weight, load_n(v, n0), sum0);
      if (n1 > 0) sum1 = fmadd(weight, load_n(v + kLanes, n1), sum1);
    }
    store_n(out + d, sum0, n0);
    if (n1 > 0) store_n(out + d + kLanes, sum1, n1);
  }
}

// The same for slots that all rows of a full tile see.
inline void tile_values(const AttentionShape& shape, const AttentionTile& tile, const float* values,
                        size_t first, size_t last) {
  const size_t dim = shape.value_head_dim;
  size_t d = 0;
  for (; d + kTileVectors * kLanes <= dim; d += kTileVectors * kLanes) {
    F32 sums[kTileRows][kTileVectors];
    NIBBLE_UNROLL
    for (size_t r = 0; r < kTileRows; ++r) {
      const float* const out = tile.rows[r]->out + d;
      NIBBLE_UNROLL
      for (size_t v = 0; v < kTileVectors; ++v) {
        sums[r][v] = mul(load(out + v * kLanes), set1(tile.keep[r]));
      }
    }
    for (size_t j = first; j < last; ++j) {
      F32 value[kTileVectors];
      NIBBLE_UNROLL
      for (size_t v = 0; v < kTileVectors; ++v) value[v] = load(values + j * dim + d + v * kLanes);
      NIBBLE_UNROLL
      for (size_t r = 0; r < kTileRows; ++r) {
        const F32 weight = set1(tile.p[r][j]);
        NIBBLE_UNROLL
        for (size_t v = 0; v < kTileVectors; ++v) sums[r][v] = fmadd(weight, value[v], sums[r][v]);
      }
    }
    NIBBLE_UNROLL
    for (size_t r = 0; r < kTileRows; ++r) {
      NIBBLE_UNROLL
      for (size_t v = 0; v < kTileVectors; ++v) store(tile.rows[r]->out + d + v * kLanes, sums[r][v]);
    }
  }
  if (d == dim) return;
  for (size_t r = 0; r < kTileRows; ++r) {
    add_values(shape, tile.p[r], values, first, last, tile.keep[r], d, tile.rows[r]->out);
  }
}

// From scores to weights, and what becomes of the sums so far.
inline void weigh_scores(const AttentionShape& shape, size_t start, AttentionTile& tile, size_t r) {
  const AttentionRow& row = *tile.rows[r];
  const size_t first = tile.first[r];
  const size_t last = tile.last[r];
  float* const p = tile.p[r];
  if (shape.soft_cap > 0.f) {
    const F32 cap = set1(shape.soft_cap);
    for (size_t j = 0; j < kAttentionBlock; j += kLanes) {
      store(p + j, mul(cap, tanh(div(load(p + j), cap))));
    }
  }
  if (row.alibi_slope != 0.f) {
    for (size_t j = first; j < last; ++j) {
      p[j] -= row.alibi_slope * static_cast<float>(row.last - 1 - (start + j));
    }
  }
  for (size_t j = 0; j < first; ++j) p[j] = -HUGE_VALF;
  for (size_t j = last; j < kAttentionBlock; ++j) p[j] = -HUGE_VALF;
  F32 maxima = load(p);
  for (size_t j = kLanes; j < kAttentionBlock; j += kLanes) maxima = max(maxima, load(p + j));
  const float block_max = reduce_max(maxima);
  const float new_largest = block_max > *tile.largest[r] ? block_max : *tile.largest[r];
  for (size_t j = 0; j < kAttentionBlock; j += kLanes) {
    store(p + j, exp(sub(load(p + j), set1(new_largest))));
  }
  for (size_t j = 0; j < first; ++j) p[j] = 0.f;
  for (size_t j = last; j < kAttentionBlock; ++j) p[j] = 0.f;
  F32 sums = load(p);
  for (size_t j = kLanes; j < kAttentionBlock; j += kLanes) sums = add(sums, load(p + j));
  const float sum = reduce_add(sums);
  // Nothing is kept from before the first block: e^(-inf).
  tile.keep[r] = *tile.total[r] == 0.f ? 0.f : std::exp(*tile.largest[r] - new_largest);
  *tile.total[r] = *tile.total[r] * tile.keep[r] + sum;
  *tile.largest[r] = new_largest;
}

inline void attend_tile(const AttentionShape& shape, size_t start, const float* keys, const float* values,
                        AttentionTile& tile) {
  const bool full = tile.size == kTileRows;
  if (full) {
    tile_scores<kTileRows>(shape, tile, 0, keys);
  } else {
    for (size_t r = 0; r < tile.size; ++r) tile_scores<1>(shape, tile, r, keys);
  }
  size_t common_first = 0;
  size_t common_last = kAttentionBlock;
  for (size_t r = 0; r < tile.size; ++r) {
    weigh_scores(shape, start, tile, r);
    common_first = tile.first[r] > common_first ? tile.first[r] : common_first;
    common_last = tile.last[r] < common_last ? tile.last[r] : common_last;
  }
  const bool together = full && common_first < common_last;
  for (size_t r = 0; r < tile.size; ++r) {
    const size_t end = together ? common_first : tile.last[r];
    if (tile.first[r] >= end) continue;
    add_values(shape, tile.p[r], values, tile.first[r], end, tile.keep[r], 0, tile.rows[r]->out);
    tile.keep[r] = 1.f;
  }
  if (!together) return;
  tile_values(shape, tile, values, common_first, common_last);
  for (size_t r = 0; r < tile.size; ++r) {
    if (common_last < tile.last[r]) {
      add_values(shape, tile.p[r], values, common_last, tile.last[r], 1.f, 0, tile.rows[r]->out);
    }
  }
}

inline void attend(const AttentionShape& shape, const AttentionRow* rows, size_t num_rows,
                   const AttentionBlocks& kv, float* scratch) {
  float* const largest = scratch;
  float* const total = scratch + num_rows;
  AttentionTile tile;
  for (size_t i = 0; i < kTileRows; ++i) tile.p[i] = scratch + 2 * num_rows + i * kAttentionBlock;

  size_t begin = static_cast<size_t>(-1);
  size_t end = 0;
  for (size_t r = 0; r < num_rows; ++r) {
    largest[r] = -HUGE_VALF;
    total[r] = 0.f;
    for (size_t d = 0; d < shape.value_head_dim; ++d) rows[r].out[d] = 0.f;
    begin = rows[r].first < begin ? rows[r].first : begin;
    end = rows[r].last > end ? rows[r].last : end;
  }
  for (size_t b = begin / kAttentionBlock; b * kAttentionBlock < end; ++b) {
    const size_t start = b * kAttentionBlock;
    const float* const keys = kv.blocks[b] + kv.key_offset;
    const float* const values = kv.blocks[b] + kv.value_offset;
    for (size_t r = 0; r < num_rows; ++r) {
      const AttentionRow& row = rows[r];
      if (row.last > start && row.first < start + kAttentionBlock) {
        const size_t i = tile.size++;
        tile.rows[i] = &row;
        tile.largest[i] = largest + r;
        tile.total[i] = total + r;
        tile.first[i] = row.first > start ? row.first - start : 0;
        tile.last[i] = row.last - start < kAttentionBlock ? row.last - start : kAttentionBlock;
      }
      if (tile.size == kTileRows || r + 1 == num_rows) {
        attend_tile(shape, start, keys, values, tile);
        tile.size = 0;
      }
    }
  }
  for (size_t r = 0; r < num_rows; ++r) {
    const F32 inverse = set1(1.f / total[r]);
    for (size_t d = 0; d < shape.value_head_dim; d += kLanes) {
      const size_t n = shape.value_head_dim - d;
      store_n(rows[r].out + d, mul(load_n(rows[r].out + d, n), inverse), n);
    }
  }
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
