// One block of keys and values for a few rows, compiled once per instruction set; part of
// attention-inl.h.
//
// Rows go through a block in tiles: a tile of sums fills the registers, so that each key and value
// that is loaded is used for all its rows. In what order a row adds up does not depend on them.

namespace nibble::kernels::NIBBLE_NAMESPACE {

#if NIBBLE_LANES == 16 || NIBBLE_LANES == 4  // with 32 registers
inline constexpr size_t kTileVectors = 4;
#else
inline constexpr size_t kTileVectors = 2;
#endif
inline constexpr size_t kTileRows = kLanes == 1 ? 2 : kAttentionTileRows;
static_assert(kTileRows <= kAttentionTileRows);
inline constexpr size_t kPrefetchBytes = 4096;

// Keys and values of kAttentionBlock tokens, as floats or as the cache stores them.
template <class E>
struct HeadBlock {
  const E* keys;              // [head_dim][kAttentionBlock]
  const E* values;            // [kAttentionBlock][value_head_dim]
  const float* key_scales;    // [kAttentionBlock], or null: all 1
  const float* value_scales;  // the same
  size_t start;               // the first token
};

// Some rows, what they have seen of the piece so far, and their part of the scratch memory.
struct AttentionTile {
  const AttentionRow* rows[kTileRows];
  float* sums[kTileRows];     // [value_head_dim]: of values, weighted
  float* largest[kTileRows];  // score
  float* total[kTileRows];    // of weights, e^(score - largest)
  float* p[kTileRows];        // [kAttentionBlock]: scores, then weights
  size_t first[kTileRows];    // slots of the block that a row sees: [first, last)
  size_t last[kTileRows];
  float keep[kTileRows];  // factor of what was seen before
  size_t size = 0;
};

// The blocks of a head follow each other in memory, but the processor's own prefetch begins anew on each
// page: few rows would wait for memory most of the time. Full tiles of floats read a block from the cache.
template <class E, size_t V, size_t R>
inline void prefetch_row(const E* row) {
  if constexpr (kLanes > 1 && (R < kTileRows || sizeof(E) < sizeof(float))) {
    const char* const ahead = reinterpret_cast<const char*>(row) + kPrefetchBytes;
    NIBBLE_UNROLL
    for (size_t b = 0; b < V * kLanes * sizeof(E); b += 64) __builtin_prefetch(ahead + b);
  }
}

// p[j] = scale * (query . key j), for the slots [j, j + V vectors) and R rows.
template <size_t R, size_t V, class E>
inline void score_slots(const AttentionShape& shape, const AttentionTile& tile, const HeadBlock<E>& block,
                        size_t j) {
  F32 sums[R][V];
  NIBBLE_UNROLL
  for (size_t r = 0; r < R; ++r) {
    NIBBLE_UNROLL
    for (size_t v = 0; v < V; ++v) sums[r][v] = set1(0.f);
  }
  for (size_t d = 0; d < shape.head_dim; ++d) {
    prefetch_row<E, V, R>(block.keys + d * kAttentionBlock + j);
    F32 key[V];
    NIBBLE_UNROLL
    for (size_t v = 0; v < V; ++v) key[v] = load(block.keys + d * kAttentionBlock + j + v * kLanes);
    NIBBLE_UNROLL
    for (size_t r = 0; r < R; ++r) {
      const F32 q = set1(tile.rows[r]->query[d]);
      NIBBLE_UNROLL
      for (size_t v = 0; v < V; ++v) sums[r][v] = fmadd(q, key[v], sums[r][v]);
    }
  }
  const F32 scale = set1(shape.scale);
  NIBBLE_UNROLL
  for (size_t v = 0; v < V; ++v) {
    const size_t at = j + v * kLanes;
    const F32 factor = block.key_scales == nullptr ? scale : mul(scale, load(block.key_scales + at));
    NIBBLE_UNROLL
    for (size_t r = 0; r < R; ++r) store(tile.p[r] + at, mul(sums[r][v], factor));
  }
}

// The slots [0, end) and those that share a vector with them.
template <size_t R, class E>
inline void tile_scores(const AttentionShape& shape, const AttentionTile& tile, const HeadBlock<E>& block,
                        size_t end) {
  constexpr size_t V = R < 3 && kLanes < 16 ? 4 : kTileVectors;  // so many hide the latency
  for (size_t j = 0; j < end;) {
    if (kLanes > 1 && V > 2 && end - j <= 2 * kLanes) {
      score_slots<R, 2>(shape, tile, block, j);
      j += 2 * kLanes;
    } else {
      score_slots<R, V>(shape, tile, block, j);
      j += V * kLanes;
    }
  }
}

// sums = sums * keep + sum of p[j] * value j, for slots [first, last) and channels [d, dim) of one row.
template <class E>
inline void add_values(const float* p, const E* values, size_t dim, size_t first, size_t last, float keep,
                       size_t d, float* sums) {
  for (; d < dim; d += 2 * kLanes) {
    const size_t n0 = dim - d;
    const size_t n1 = n0 > kLanes ? n0 - kLanes : 0;
    F32 sum0 = mul(load_n(sums + d, n0), set1(keep));
    F32 sum1 = n1 > 0 ? mul(load_n(sums + d + kLanes, n1), set1(keep)) : set1(0.f);
    for (size_t j = first; j < last; ++j) {
      const E* const v = values + j * dim + d;
      const F32 weight = set1(p[j]);
      sum0 = fmadd(weight, load_n(v, n0), sum0);
      if (n1 > 0) sum1 = fmadd(weight, load_n(v + kLanes, n1), sum1);
    }
    store_n(sums + d, sum0, n0);
    if (n1 > 0) store_n(sums + d + kLanes, sum1, n1);
  }
}

// The same for slots that all R rows of a tile see.
template <size_t R, class E>
inline void tile_values(const AttentionTile& tile, const E* values, size_t dim, size_t first, size_t last) {
  size_t d = 0;
  for (; d + kTileVectors * kLanes <= dim; d += kTileVectors * kLanes) {
    F32 sums[R][kTileVectors];
    NIBBLE_UNROLL
    for (size_t r = 0; r < R; ++r) {
      const float* const from = tile.sums[r] + d;
      NIBBLE_UNROLL
      for (size_t v = 0; v < kTileVectors; ++v) {
        sums[r][v] = mul(load(from + v * kLanes), set1(tile.keep[r]));
      }
    }
    for (size_t j = first; j < last; ++j) {
      prefetch_row<E, kTileVectors, R>(values + j * dim + d);
      F32 value[kTileVectors];
      NIBBLE_UNROLL
      for (size_t v = 0; v < kTileVectors; ++v) value[v] = load(values + j * dim + d + v * kLanes);
      NIBBLE_UNROLL
      for (size_t r = 0; r < R; ++r) {
        const F32 weight = set1(tile.p[r][j]);
        NIBBLE_UNROLL
        for (size_t v = 0; v < kTileVectors; ++v) sums[r][v] = fmadd(weight, value[v], sums[r][v]);
      }
    }
    NIBBLE_UNROLL
    for (size_t r = 0; r < R; ++r) {
      NIBBLE_UNROLL
      for (size_t v = 0; v < kTileVectors; ++v) store(tile.sums[r] + d + v * kLanes, sums[r][v]);
    }
  }
  if (d == dim) return;
  for (size_t r = 0; r < R; ++r) {
    add_values(tile.p[r], values, dim, first, last, tile.keep[r], d, tile.sums[r]);
  }
}

// The largest of a row's scores and what it has seen before. Slots that it does not see get the score -inf.
inline float largest_score(const AttentionShape& shape, size_t start, const AttentionTile& tile, size_t r) {
  const AttentionRow& row = *tile.rows[r];
  const size_t first = tile.first[r];
  const size_t last = tile.last[r];
  float* const p = tile.p[r];
  if (shape.soft_cap > 0.f) {
    const F32 cap = set1(shape.soft_cap);
    for (size_t j = 0; j < last; j += kLanes) store(p + j, mul(cap, tanh(div(load(p + j), cap))));
  }
  if (row.alibi_slope != 0.f) {
    for (size_t j = first; j < last; ++j) {
      p[j] -= row.alibi_slope * static_cast<float>(row.last - 1 - (start + j));
    }
  }
  if (row.bias != nullptr) {
    for (size_t j = first; j < last; ++j) p[j] += row.bias[start + j];
  }
  for (size_t j = 0; j < first; ++j) p[j] = -HUGE_VALF;
  for (size_t j = last; j < kAttentionBlock; ++j) p[j] = -HUGE_VALF;
  F32 largest = load(p);
  for (size_t j = kLanes; j < kAttentionBlock; j += kLanes) largest = max(largest, load(p + j));
  const float block_max = reduce_max(largest);
  return block_max > *tile.largest[r] ? block_max : *tile.largest[r];
}

// p := e^(p - largest), times the scales of the values if there are any; the sum before that, lane by lane.
inline F32 exponentials(float largest, const float* value_scales, float* p) {
  constexpr size_t kStep = kLanes == 1 ? 1 : kAttentionBlock / kLanes;  // vectors in registers
  F32 sum = set1(0.f);
  for (size_t j = 0; j < kAttentionBlock; j += kStep * kLanes) {
    F32 weights[kStep];
    NIBBLE_UNROLL
    for (size_t v = 0; v < kStep; ++v) {
      weights[v] = exp(sub(load(p + j + v * kLanes), set1(largest)));
      sum = add(sum, weights[v]);
    }
    NIBBLE_UNROLL
    for (size_t v = 0; v < kStep; ++v) {
      const size_t at = j + v * kLanes;
      store(p + at, value_scales == nullptr ? weights[v] : mul(weights[v], load(value_scales + at)));
    }
  }
  return sum;
}

// From scores to weights, and what becomes of the sums so far. Weights of slots that a row does not see are
// next to nothing, and nobody looks at them. Step by step for all rows: each step waits for the one before
// it, and rows do not wait for each other.
template <size_t R>
inline void weigh_scores(const AttentionShape& shape, size_t start, const float* value_scales,
                         AttentionTile& tile) {
  float largest[R];
  F32 sums[R];
  for (size_t r = 0; r < R; ++r) largest[r] = largest_score(shape, start, tile, r);
  for (size_t r = 0; r < R; ++r) sums[r] = exponentials(largest[r], value_scales, tile.p[r]);
  for (size_t r = 0; r < R; ++r) {
    const float before = *tile.largest[r];
    // Nothing is kept from before the first block: e^(-inf). Most often the largest score stays.
    tile.keep[r] = *tile.total[r] == 0.f ? 0.f : before == largest[r] ? 1.f : std::exp(before - largest[r]);
    *tile.total[r] = *tile.total[r] * tile.keep[r] + reduce_add(sums[r]);
    *tile.largest[r] = largest[r];
  }
}

template <size_t R, class E>
inline void weigh_rows(const AttentionShape& shape, const HeadBlock<E>& block, AttentionTile& tile) {
  size_t end = 0;
  for (size_t r = 0; r < R; ++r) end = tile.last[r] > end ? tile.last[r] : end;
  tile_scores<R>(shape, tile, block, end);
  weigh_scores<R>(shape, block.start, block.value_scales, tile);
}

template <size_t R, class E>
inline void sum_rows(const AttentionShape& shape, const HeadBlock<E>& block, AttentionTile& tile) {
  const size_t dim = shape.value_head_dim;
  size_t common_first = 0;
  size_t common_last = kAttentionBlock;
  for (size_t r = 0; r < R; ++r) {
    common_first = tile.first[r] > common_first ? tile.first[r] : common_first;
    common_last = tile.last[r] < common_last ? tile.last[r] : common_last;
  }
  const bool together = common_first < common_last;
  for (size_t r = 0; r < R; ++r) {
    const size_t stop = together ? common_first : tile.last[r];
    if (tile.first[r] >= stop) continue;
    add_values(tile.p[r], block.values, dim, tile.first[r], stop, tile.keep[r], 0, tile.sums[r]);
    tile.keep[r] = 1.f;
  }
  if (!together) return;
  tile_values<R>(tile, block.values, dim, common_first, common_last);
  for (size_t r = 0; r < R; ++r) {
    if (common_last < tile.last[r]) {
      add_values(tile.p[r], block.values, dim, common_last, tile.last[r], 1.f, 0, tile.sums[r]);
    }
  }
}

#if NIBBLE_LANES > 1
#define NIBBLE_CALL_FOR_ROWS(function, size, ...) \
  switch (size) {                                 \
    case 1:                                       \
      return function<1>(__VA_ARGS__);            \
    case 2:                                       \
      return function<2>(__VA_ARGS__);            \
    case 3:                                       \
      return function<3>(__VA_ARGS__);            \
    case 4:                                       \
      return function<4>(__VA_ARGS__);            \
    case 5:                                       \
      return function<5>(__VA_ARGS__);            \
    default:                                      \
      return function<6>(__VA_ARGS__);            \
  }
#else
#define NIBBLE_CALL_FOR_ROWS(function, size, ...) \
  return size == 1 ? function<1>(__VA_ARGS__) : function<2>(__VA_ARGS__)
#endif

template <class E>
inline void weigh_tile(const AttentionShape& shape, const HeadBlock<E>& block, AttentionTile& tile) {
  NIBBLE_CALL_FOR_ROWS(weigh_rows, tile.size, shape, block, tile);
}

template <class E>
inline void sum_tile(const AttentionShape& shape, const HeadBlock<E>& block, AttentionTile& tile) {
  NIBBLE_CALL_FOR_ROWS(sum_rows, tile.size, shape, block, tile);
}

#undef NIBBLE_CALL_FOR_ROWS

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
