// The functions of elementwise.h, compiled once per instruction set.

namespace nibble::kernels::NIBBLE_NAMESPACE {

inline void rms_norm(const float* x, const float* weight, float eps, size_t n, float* y) {
  F32 squares = set1(0.f);
  for (size_t i = 0; i < n; i += kLanes) {
    const F32 v = load_n(x + i, n - i);
    squares = fmadd(v, v, squares);
  }
  const float mean = reduce_add(squares) / static_cast<float>(n);
  const F32 scale = set1(1.f / std::sqrt(mean + eps));
  for (size_t i = 0; i < n; i += kLanes) {
    const F32 v = mul(load_n(x + i, n - i), scale);
    store_n(y + i, mul(v, load_n(weight + i, n - i)), n - i);
  }
}

inline void layer_norm(const float* x, const float* weight, const float* bias, float eps, size_t n,
                       float* y) {
  F32 sum = set1(0.f);
  for (size_t i = 0; i < n; i += kLanes) sum = add(sum, load_n(x + i, n - i));
  const float mean = reduce_add(sum) / static_cast<float>(n);
  // The variance of the centred values, not mean(x^2) - mean^2, which cancels.
  F32 squares = set1(0.f);
  for (size_t i = 0; i < n; i += kLanes) {
    // Lanes behind the end hold the mean, so that they add nothing.
    F32 v = sub(load_n(x + i, n - i), set1(mean));
    if (n - i < kLanes) {
      float lanes[kLanes] = {};
      store_n(lanes, v, n - i);
      v = load(lanes);
    }
    squares = fmadd(v, v, squares);
  }
  const float variance = reduce_add(squares) / static_cast<float>(n);
  const F32 scale = set1(1.f / std::sqrt(variance + eps));
  for (size_t i = 0; i < n; i += kLanes) {
    const F32 v = mul(sub(load_n(x + i, n - i), set1(mean)), scale);
    const F32 w = load_n(weight + i, n - i);
    store_n(y + i, bias == nullptr ? mul(v, w) : fmadd(v, w, load_n(bias + i, n - i)), n - i);
  }
}

inline void add_rows(const float* x, size_t n, float* y) {
  for (size_t i = 0; i < n; i += kLanes) {
    store_n(y + i, add(load_n(y + i, n - i), load_n(x + i, n - i)), n - i);
  }
}

inline F32 silu(F32 x) { return div(x, add(set1(1.f), exp(sub(set1(0.f), x)))); }

inline F32 gelu_tanh(F32 x) {
  const F32 cubic = mul(mul(x, x), x);
  const F32 inner = mul(set1(0.7978845608f), fmadd(set1(0.044715f), cubic, x));
  return mul(mul(set1(0.5f), x), add(set1(1.f), tanh(inner)));
}

// x Phi(x), where Phi(-|x|) = erfc(|x| / sqrt 2) / 2 = e^(-x^2 / 2) P(1 / (1 + 0.34 |x|)) / 2. P is fitted to
// within 3e-8 for |x| <= 14, behind which float32 has nothing left; as a product, small values keep their
// digits.
inline F32 gelu(F32 x) {
  const F32 size = min(max(sub(set1(0.f), x), x), set1(14.f));
  const F32 t = div(set1(1.f), fmadd(set1(0.34f), size, set1(1.f)));
  F32 p = set1(-0.05224141f);
  p = fmadd(p, t, set1(0.279001f));
  p = fmadd(p, t, set1(-0.5462692f));
  p = fmadd(p, t, set1(0.40436903f));
  p = fmadd(p, t, set1(-0.08943912f));
  p = fmadd(p, t, set1(0.23071913f));
  p = fmadd(p, t, set1(0.23039515f));
  p = fmadd(p, t, set1(0.27222443f));
  p = fmadd(p, t, set1(0.271241f));
  const F32 half = mul(set1(0.5f), size);
  const F32 tail = mul(mul(half, mul(p, t)), exp(sub(set1(0.f), mul(half, size))));
  return sub(max(set1(0.f), x), tail);
}

inline F32 apply(Activation activation, F32 x) {
  switch (activation) {
    case Activation::kSilu:
      return silu(x);
    case Activation::kGelu:
      return gelu(x);
    case Activation::kGeluTanh:
      return gelu_tanh(x);
    case Activation::kRelu:
      return max(set1(0.f), x);  // in this order it keeps a NaN
    case Activation::kRelu2: {
      const F32 positive = max(set1(0.f), x);
      return mul(positive, positive);
    }
  }
  return x;
}

inline void activate(Activation activation, const float* x, size_t n, float* y) {
  for (size_t i = 0; i < n; i += kLanes) {
    store_n(y + i, apply(activation, load_n(x + i, n - i)), n - i);
  }
}

inline void activate_and_multiply(Activation activation, const float* gate, const float* up, size_t n,
                                  float* y) {
  for (size_t i = 0; i < n; i += kLanes) {
    const F32 activated = apply(activation, load_n(gate + i, n - i));
    store_n(y + i, mul(activated, load_n(up + i, n - i)), n - i);
  }
}

inline void soft_cap(const float* x, float cap, size_t n, float* y) {
  const F32 c = set1(cap);
  for (size_t i = 0; i < n; i += kLanes) {
    store_n(y + i, mul(c, tanh(div(load_n(x + i, n - i), c))), n - i);
  }
}

inline void rotate_half(float* x, const float* cos, const float* sin, size_t half) {
  for (size_t i = 0; i < half; i += kLanes) {
    const size_t n = half - i;
    const F32 a = load_n(x + i, n);
    const F32 b = load_n(x + half + i, n);
    const F32 c = load_n(cos + i, n);
    const F32 s = load_n(sin + i, n);
    store_n(x + i, sub(mul(a, c), mul(b, s)), n);
    store_n(x + half + i, fmadd(b, c, mul(a, s)), n);
  }
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
