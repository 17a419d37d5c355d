// The passes of vocabulary.h, compiled once per instruction set.

namespace nibble::kernels::NIBBLE_NAMESPACE {

inline constexpr size_t kAtOnce = 8 * kLanes;

// The largest of some values, or NaN if one of them is NaN or +infinity.
inline float largest_of(const float* values, size_t count) {
  constexpr float kLowest = -3.40282347e38f;
  F32 largest[4];
  F32 zero_or_nan = set1(0.f);
  for (F32& v : largest) v = set1(-HUGE_VALF);
  size_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    NIBBLE_UNROLL
    for (size_t v = 0; v < 4; ++v) {
      const F32 x = load(values + i + v * kLanes);
      largest[v] = max(largest[v], x);
      // -infinity is a token that is ruled out. The order matters: max(a, NaN) is NaN.
      zero_or_nan = fmadd(max(set1(kLowest), x), set1(0.f), zero_or_nan);
    }
  }
  float result = reduce_max(max(max(largest[0], largest[1]), max(largest[2], largest[3])));
  float damage = reduce_add(zero_or_nan);
  for (; i < count; ++i) {
    result = values[i] > result ? values[i] : result;
    damage += (values[i] < kLowest ? 0.f : values[i]) * 0.f;
  }
  return result + damage;
}

inline Largest find_largest(const float* values, size_t count) {
  constexpr size_t kBlock = 4096;
  float largest = -HUGE_VALF;
  size_t block = 0;  // where the largest stands
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const float here = largest_of(values + begin, count - begin < kBlock ? count - begin : kBlock);
    if (!(here <= 3.40282347e38f)) return {0, true};
    if (here > largest) {
      largest = here;
      block = begin;
    }
  }
  size_t index = block;
  while (values[index] != largest) ++index;
  return {index, false};
}

inline size_t find_at_least(const float* values, size_t begin, size_t end, float threshold) {
  for (; begin + kAtOnce <= end; begin += kAtOnce) {
    F32 largest = load(values + begin);
    NIBBLE_UNROLL
    for (size_t v = 1; v < 8; ++v) largest = max(largest, load(values + begin + v * kLanes));
    if (reduce_max(largest) >= threshold) break;
  }
  for (; begin < end; ++begin) {
    if (values[begin] >= threshold) return begin;
  }
  return end;
}

inline double weight_sum(const float* weights, size_t count) {
  F32 sums[4];
  for (F32& v : sums) v = set1(0.f);
  size_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    NIBBLE_UNROLL
    for (size_t v = 0; v < 4; ++v) sums[v] = add(sums[v], load(weights + i + v * kLanes));
  }
  double sum = double{reduce_add(add(add(sums[0], sums[1]), add(sums[2], sums[3])))};
  for (; i < count; ++i) sum += double{weights[i]};
  return sum;
}

inline double exponential_weights(const float* values, size_t count, float largest, float factor,
                                  float* weights) {
  const F32 high = set1(largest);
  const F32 times = set1(factor);
  // exp() ends at 1.2e-38: what is ruled out must have the weight 0.
  const F32 least = set1(2e-38f);
  double sum = 0;
  for (size_t begin = 0; begin < count; begin += kWeightBlock) {
    const size_t n = count - begin < kWeightBlock ? count - begin : kWeightBlock;
    for (size_t i = 0; i < n; i += kLanes) {
      const F32 x = mul(sub(load_n(values + begin + i, n - i), high), times);
      store_n(weights + begin + i, max(sub(exp(x), least), set1(0.f)), n - i);
    }
    sum += weight_sum(weights + begin, n);
  }
  return sum;
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
