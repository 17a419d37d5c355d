#include "nibble/kernels/dense.h"

#include <algorithm>

#include "nibble/base/float16.h"
#include "nibble/base/simd_region.h"
#include "nibble/kernels/dense_targets.h"

namespace nibble::kernels {
namespace {

// Plain C++ with the shape of a vector, so that the compiler may use what every x86-64 has.
struct Simd {
  static constexpr size_t kLanes = 8;
  static constexpr size_t kRows = 2;
  static constexpr size_t kTokens = 2;

  struct Vec {
    float lane[kLanes];
  };

  static float to_float(float value) { return value; }
  static float to_float(Half value) { return fp16_to_float(value.bits); }
  static float to_float(BFloat value) { return bf16_to_float(value.bits); }

  static Vec zero() { return {}; }
  template <class E>
  static Vec load(const E* p) {
    return load_first(p, kLanes);
  }
  template <class E>
  static Vec load_first(const E* p, size_t count) {
    Vec v = {};
    for (size_t l = 0; l < count; ++l) v.lane[l] = to_float(p[l]);
    return v;
  }
  static Vec fma(const Vec& a, const Vec& b, Vec sum) {
    for (size_t l = 0; l < kLanes; ++l) sum.lane[l] += a.lane[l] * b.lane[l];
    return sum;
  }
  static float sum(const Vec& v) {
    return ((v.lane[0] + v.lane[4]) + (v.lane[2] + v.lane[6])) +
           ((v.lane[1] + v.lane[5]) + (v.lane[3] + v.lane[7]));
  }
};

}  // namespace
}  // namespace nibble::kernels

#include "nibble/kernels/dense-inl.h"

namespace nibble::kernels {

void dense_product_scalar(const DenseRows& w, MatrixView<const float> x, MatrixView<float> y) {
  product(w, x, y);
}

void dense_product(const DenseRows& w, MatrixView<const float> x, MatrixView<float> y, CpuTarget target) {
#if NIBBLE_X86
  if (target >= CpuTarget::kAvx512) return dense_product_avx512(w, x, y);
  if (target >= CpuTarget::kAvx2) return dense_product_avx2(w, x, y);
#elif NIBBLE_ARM
  if (target >= CpuTarget::kNeon) return dense_product_neon(w, x, y);
#endif
  static_cast<void>(target);
  dense_product_scalar(w, x, y);
}

size_t dense_rows_per_call(size_t in_features, size_t bytes_per_element) {
  constexpr size_t kBytes = size_t{256} << 10;  // a quarter of a current L2: the tokens pass through it too
  constexpr size_t kBlock = 4;
  const size_t rows = kBytes / std::max<size_t>(1, in_features * bytes_per_element);
  return std::clamp<size_t>(rows / kBlock * kBlock, kBlock, 64);
}

}  // namespace nibble::kernels
