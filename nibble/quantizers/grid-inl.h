// What grid.cc does with every weight, compiled once per instruction set.

namespace nibble::kernels::NIBBLE_NAMESPACE {

// v^exponent for v >= 0, within 1e-6 of it. ln v is the exponent of the float times ln 2, plus
// 2 artanh((m - 1) / (m + 1)) for its mantissa m, brought to [0.75, 1.5).
inline F32 power(F32 v, F32 exponent) {
  float lanes[kLanes];
  float exponents[kLanes];
  store(lanes, v);
  for (size_t k = 0; k < kLanes; ++k) {
    uint32_t bits;
    std::memcpy(&bits, lanes + k, sizeof(bits));
    const uint32_t shifted = bits + 0x00400000u;  // carries into the exponent where m >= 1.5
    const uint32_t mantissa = bits - (shifted & 0xFF800000u) + 0x3F800000u;
    exponents[k] = static_cast<float>(static_cast<int32_t>(shifted >> 23) - 127);
    std::memcpy(lanes + k, &mantissa, sizeof(mantissa));
  }
  const F32 m = load(lanes);
  const F32 t = div(sub(m, set1(1.f)), add(m, set1(1.f)));
  const F32 t2 = mul(t, t);
  F32 p = set1(2.f / 9.f);
  p = fmadd(p, t2, set1(2.f / 7.f));
  p = fmadd(p, t2, set1(2.f / 5.f));
  p = fmadd(p, t2, set1(2.f / 3.f));
  p = fmadd(p, t2, set1(2.f));
  const F32 log = fmadd(load(exponents), set1(0.693147181f), mul(p, t));
  return exp(mul(exponent, log));
}

// Sum of |scale * (code - zero) - w|^exponent.
inline float rounding_error(const float* weights, size_t count, float scale, float zero, float max_code,
                            float exponent) {
  F32 sum = set1(0.f);
  for (size_t i = 0; i < count; i += kLanes) {
    const F32 w = load_n(weights + i, count - i);  // lanes behind the end: zeros, which are exact
    const F32 code = max(min(add(round(div(w, set1(scale))), set1(zero)), set1(max_code)), set1(0.f));
    const F32 off = sub(mul(set1(scale), sub(code, set1(zero))), w);
    const F32 magnitude = max(off, sub(set1(0.f), off));
    sum = add(sum, exponent == 2.f ? mul(off, off) : power(magnitude, set1(exponent)));
  }
  return reduce_add(sum);
}

// lo and hi: the smallest and the largest of the weights and 0; NaN counts as nothing.
inline void find_range(const float* weights, size_t count, float* lo, float* hi) {
  F32 smallest = set1(0.f);
  F32 largest = set1(0.f);
  for (size_t i = 0; i < count; i += kLanes) {
    const F32 w = load_n(weights + i, count - i);
    smallest = min(w, smallest);
    largest = max(w, largest);
  }
  *lo = -reduce_max(sub(set1(0.f), smallest));
  *hi = reduce_max(largest);
}

// As nearest_code() of finite weights.
inline void nearest_codes(const float* weights, size_t count, float scale, float zero, float max_code,
                          uint8_t* codes) {
  constexpr size_t kPart = 64;
  for (size_t i = 0; i < count; i += kPart) {
    const size_t part = count - i < kPart ? count - i : kPart;
    float values[kPart] = {};
    for (size_t j = 0; j < part; j += kLanes) {
      const F32 w = load_n(weights + i + j, part - j);
      store(values + j, max(min(add(round(div(w, set1(scale))), set1(zero)), set1(max_code)), set1(0.f)));
    }
    uint8_t bytes[kPart];
    for (size_t j = 0; j < kPart; ++j) bytes[j] = static_cast<uint8_t>(static_cast<int32_t>(values[j]));
    std::memcpy(codes + i, bytes, part);
  }
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
