// What the searches of awq_search.cc do to the inputs of one group, compiled once per instruction set.
// The same bits on each.

namespace nibble::kernels::NIBBLE_NAMESPACE {

// w[i] * s[i]; w[i] where s is null.
inline F32 load_scaled(const float* w, const float* s, size_t i) {
  return s == nullptr ? load(w + i) : mul(load(w + i), load(s + i));
}

inline AwqGrid awq_grid(const float* w, const float* s, size_t count, float limit, bool zero_point) {
  float lo = std::numeric_limits<float>::infinity();
  float hi = -lo;
  size_t i = 0;
  if (count >= kLanes) {
    F32 los = set1(lo);
    F32 his = set1(hi);
    for (; i + kLanes <= count; i += kLanes) {
      const F32 v = load_scaled(w, s, i);
      los = min(los, v);
      his = max(his, v);
    }
    float lanes[2][kLanes];
    store(lanes[0], los);
    store(lanes[1], his);
    for (size_t k = 0; k < kLanes; ++k) {
      lo = lanes[0][k] < lo ? lanes[0][k] : lo;
      hi = lanes[1][k] > hi ? lanes[1][k] : hi;
    }
  }
  for (; i < count; ++i) {
    const float v = s == nullptr ? w[i] : w[i] * s[i];
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
  }
  return awq_grid_of(clamped(lo, limit), clamped(hi, limit), zero_point);
}

// pseudo_quantize(clamp(w * s, -limit, limit)) / s - w, with s = 1 where it is null.
inline void awq_error(const float* w, const float* s, size_t count, float limit, bool zero_point,
                      float* out) {
  const AwqGrid grid = awq_grid(w, s, count, limit, zero_point);
  const F32 scale = set1(grid.scale);
  const F32 zero = set1(grid.zero);
  for (size_t i = 0; i < count; i += kLanes) {
    const size_t n = count - i;
    const F32 original = load_n(w + i, n);
    const F32 factor = s == nullptr ? set1(1.f) : load_n(s + i, n);
    const F32 v = max(min(mul(original, factor), set1(limit)), set1(-limit));
    const F32 code = max(min(add(round(div(v, scale)), zero), set1(15.f)), set1(0.f));
    store_n(out + i, sub(div(mul(sub(code, zero), scale), factor), original), n);
  }
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
