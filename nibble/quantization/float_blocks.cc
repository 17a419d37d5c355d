#include "nibble/quantization/float_blocks.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "nibble/base/float16.h"

namespace nibble {
namespace {

constexpr size_t kLanes = 4;
using Halves = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));
using Words = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));

constexpr uint32_t kMagnitude = 0x7FFFFFFFu;

template <class V, class T>
V load(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <class V, class T>
void store(T* p, const V& v) {
  std::memcpy(p, &v, sizeof(v));
}

template <class V>
V choose(const Ints& condition, const V& yes, const V& no) {
  return std::bit_cast<V>((std::bit_cast<Ints>(yes) & condition) | (std::bit_cast<Ints>(no) & ~condition));
}

// As fp16_to_float. The product moves the exponent's bias, and makes a subnormal half a normal float.
Floats widen_half(const Words& half) {
  const Words magnitude = (half & 0x7FFFu) << 13;
  const Floats finite = std::bit_cast<Floats>(magnitude) * 0x1p112f;
  const Floats special = std::bit_cast<Floats>(magnitude | 0x7F800000u);
  const Floats value = choose((Ints)(magnitude >= (0x7C00u << 13)), special, finite);
  return std::bit_cast<Floats>(std::bit_cast<Words>(value) | ((half & 0x8000u) << 16));
}

}  // namespace

void load_floats(const Tensor& tensor, size_t begin, size_t count, float* out) {
  if (tensor.dtype == DType::kF32) {
    std::memcpy(out, tensor.bytes.data() + begin * sizeof(float), count * sizeof(float));
    return;
  }
  const bool is_half = tensor.dtype == DType::kF16;
  const std::byte* const source = tensor.bytes.data() + begin * sizeof(uint16_t);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Words bits = __builtin_convertvector(load<Halves>(source + i * sizeof(uint16_t)), Words);
    store(out + i, is_half ? widen_half(bits) : std::bit_cast<Floats>(bits << 16));
  }
  for (; i < count; ++i) {
    uint16_t half = 0;
    std::memcpy(&half, source + i * sizeof(half), sizeof(half));
    out[i] = is_half ? fp16_to_float(half) : bf16_to_float(half);
  }
}

float largest_magnitude(std::span<const float> values) {
  // As integers magnitudes are in the same order, and NaN behind infinity.
  Ints largest = {};
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    const Ints bits = std::bit_cast<Ints>(load<Words>(values.data() + i) & kMagnitude);
    largest = choose((Ints)(bits > largest), bits, largest);
  }
  int32_t result = 0;
  for (size_t lane = 0; lane < kLanes; ++lane) result = std::max(result, largest[lane]);
  for (; i < values.size(); ++i) {
    result = std::max(result, static_cast<int32_t>(std::bit_cast<uint32_t>(values[i]) & kMagnitude));
  }
  return std::bit_cast<float>(result);
}

void scale_and_clamp(std::span<float> values, float factor) {
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    Floats x = load<Floats>(values.data() + i) * factor;
    const Floats one = 1.f - Floats{};
    x = choose((Ints)(x > one), one, x);
    x = choose((Ints)(x < -one), -one, x);
    store(values.data() + i, x);
  }
  for (; i < values.size(); ++i) values[i] = std::clamp(values[i] * factor, -1.f, 1.f);
}

}  // namespace nibble
