// attend() of attention.h, compiled once per instruction set.

namespace nibble::kernels::NIBBLE_NAMESPACE {

// scores[j] = scale * (query . key j), for all tokens of a block.
inline void block_scores(const AttentionShape& shape, const float* query, const float* keys, float* scores) {
  // Four sums hide the latency of the multiply-add; 16 lanes make it one round.
  constexpr size_t kStep = 4 * kLanes < kAttentionBlock ? 4 * kLanes : kAttentionBlock;
  const F32 scale = set1(shape.scale);
  for (size_t j = 0; j < kAttentionBlock; j += kStep) {
    F32 s0 = set1(0.f), s1 = s0, s2 = s0, s3 = s0;
    for (size_t d = 0; d < shape.head_dim; ++d) {
      const F32 q = set1(query[d]);
      const float* const k = keys + d * kAttentionBlock + j;
      s0 = fmadd(q, load(k), s0);
      s1 = fmadd(q, load(k + kLanes), s1);
      s2 = fmadd(q, load(k + 2 * kLanes), s2);
      s3 = fmadd(q, load(k + 3 * kLanes), s3);
    }
    store(scores + j, mul(s0, scale));
    store(scores + j + kLanes, mul(s1, scale));
    store(scores + j + 2 * kLanes, mul(s2, scale));
    store(scores + j + 3 * kLanes, mul(s3, scale));
  }
  if (shape.soft_cap > 0.f) {
    const F32 cap = set1(shape.soft_cap);
    for (size_t j = 0; j < kAttentionBlock; j += kLanes) {
      store(scores + j, mul(cap, tanh(div(load(scores + j), cap))));
    }
  }
}

// out = out * keep + sum of p[j] * value j, j in [first, last).
inline void add_values(const AttentionShape& shape, const float* p, const float* values, size_t first,
                       size_t last, float keep, float* out) {
  const size_t dim = shape.value_head_dim;
  for (size_t d = 0; d < dim; d += 2 * kLanes) {
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

inline void attend(const AttentionShape& shape, const AttentionRow* rows, size_t num_rows,
                   const AttentionBlocks& kv, float* scratch) {
  // Of the tokens seen so far: the largest score, and the sum of e^(score - largest). `out` holds
  // the sum of values weighted in the same way.
  float* const largest = scratch;
  float* const total = scratch + num_rows;
  float* const p = scratch + 2 * num_rows;

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
      if (row.last <= start || row.first >= start + kAttentionBlock) continue;
      const size_t first = row.first > start ? row.first - start : 0;
      const size_t last = row.last - start < kAttentionBlock ? row.last - start : kAttentionBlock;

      block_scores(shape, row.query, keys, p);
      if (row.alibi_slope != 0.f) {
        for (size_t j = first; j < last; ++j) {
          p[j] -= row.alibi_slope * static_cast<float>(row.last - 1 - (start + j));
        }
      }
      float block_max = p[first];
      for (size_t j = first + 1; j < last; ++j) block_max = p[j] > block_max ? p[j] : block_max;
      const float new_largest = block_max > largest[r] ? block_max : largest[r];
      for (size_t j = 0; j < kAttentionBlock; j += kLanes) {
        store(p + j, exp(sub(load(p + j), set1(new_largest))));
      }
      float sum = 0.f;
      for (size_t j = first; j < last; ++j) sum += p[j];
      // Nothing is kept from before the first block: e^(-inf).
      const float keep = total[r] == 0.f ? 0.f : std::exp(largest[r] - new_largest);
      total[r] = total[r] * keep + sum;
      largest[r] = new_largest;
      add_values(shape, p, values, first, last, keep, row.out);
    }
  }
  for (size_t r = 0; r < num_rows; ++r) {
    const float inverse = 1.f / total[r];
    for (size_t d = 0; d < shape.value_head_dim; ++d) rows[r].out[d] *= inverse;
  }
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
