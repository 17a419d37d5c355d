// Compiled once per instruction set: the including file defines, inside its region,
//   struct Simd {
//     using Vec = ...;                       // kLanes floats
//     static constexpr size_t kLanes;
//     static constexpr size_t kRows, kTokens;  // register block: kRows * kTokens sums
//     static Vec zero(), load(const E*), load_first(const E*, size_t count), fma(a, b, sum);
//     static float sum(Vec);
//   };
// for E = float, Half, BFloat (dense_targets.h).

namespace nibble::kernels {
namespace {

template <class E, size_t R, size_t T>
void dot_block(const E* w, const float* x, size_t x_stride, size_t in_features, float* y, size_t y_stride) {
  typename Simd::Vec sums[R][T];
  NIBBLE_UNROLL
  for (size_t r = 0; r < R; ++r) {
    NIBBLE_UNROLL
    for (size_t t = 0; t < T; ++t) sums[r][t] = Simd::zero();
  }
  const size_t whole = in_features / Simd::kLanes * Simd::kLanes;
  for (size_t k = 0; k < whole; k += Simd::kLanes) {
    typename Simd::Vec wv[R];
    NIBBLE_UNROLL
    for (size_t r = 0; r < R; ++r) {
      // Asks for the rows after these: they are often no longer than a page, on each of which a processor's
      // own prefetcher begins anew.
      __builtin_prefetch(w + (R + r) * in_features + k);
      wv[r] = Simd::load(w + r * in_features + k);
    }
    NIBBLE_UNROLL
    for (size_t t = 0; t < T; ++t) {
      const typename Simd::Vec xv = Simd::load(x + t * x_stride + k);
      NIBBLE_UNROLL
      for (size_t r = 0; r < R; ++r) sums[r][t] = Simd::fma(wv[r], xv, sums[r][t]);
    }
  }
  if (whole < in_features) {
    const size_t rest = in_features - whole;
    NIBBLE_UNROLL
    for (size_t r = 0; r < R; ++r) {
      const typename Simd::Vec wv = Simd::load_first(w + r * in_features + whole, rest);
      NIBBLE_UNROLL
      for (size_t t = 0; t < T; ++t) {
        sums[r][t] = Simd::fma(wv, Simd::load_first(x + t * x_stride + whole, rest), sums[r][t]);
      }
    }
  }
  NIBBLE_UNROLL
  for (size_t r = 0; r < R; ++r) {
    NIBBLE_UNROLL
    for (size_t t = 0; t < T; ++t) y[t * y_stride + r] = Simd::sum(sums[r][t]);
  }
}

// All outputs for T tokens.
template <class E, size_t T>
void dot_rows(const DenseRows& w, const float* x, size_t x_stride, float* y, size_t y_stride) {
  const E* const rows = static_cast<const E*>(w.data);
  const size_t whole = w.out_features / Simd::kRows * Simd::kRows;
  for (size_t n = 0; n < whole; n += Simd::kRows) {
    dot_block<E, Simd::kRows, T>(rows + n * w.in_features, x, x_stride, w.in_features, y + n, y_stride);
  }
  for (size_t n = whole; n < w.out_features; ++n) {
    dot_block<E, 1, T>(rows + n * w.in_features, x, x_stride, w.in_features, y + n, y_stride);
  }
}

template <class E, size_t T>
void dot_tokens(const DenseRows& w, MatrixView<const float> x, size_t token, MatrixView<float> y) {
  for (; token + T <= x.rows(); token += T) {
    dot_rows<E, T>(w, x.row(token), x.stride(), y.row(token), y.stride());
  }
  if constexpr (T > 1) dot_tokens<E, T - 1>(w, x, token, y);
}

void product(const DenseRows& w, MatrixView<const float> x, MatrixView<float> y) {
  switch (w.dtype) {
    case DType::kF16:
      return dot_tokens<Half, Simd::kTokens>(w, x, 0, y);
    case DType::kBF16:
      return dot_tokens<BFloat, Simd::kTokens>(w, x, 0, y);
    default:
      return dot_tokens<float, Simd::kTokens>(w, x, 0, y);
  }
}

}  // namespace
}  // namespace nibble::kernels
