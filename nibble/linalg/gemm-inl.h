// Panels and their products (gemm_kernels.h), compiled once per instruction set. On the compiler's
// vector types, because float, double and 32-bit pairs of bfloat16 are all packed the same way.

namespace nibble::linalg::NIBBLE_NAMESPACE {

#if NIBBLE_LANES == 16
constexpr size_t kVectorBytes = 64;
constexpr size_t kPanelRows = 14;
#elif NIBBLE_LANES == 8
constexpr size_t kVectorBytes = 32;
constexpr size_t kPanelRows = 6;
#elif NIBBLE_LANES == 4
constexpr size_t kVectorBytes = 16;
constexpr size_t kPanelRows = 12;
#else
constexpr size_t kVectorBytes = 16;  // plain C++ here, which any x86-64 does with SSE2, and ARM with NEON
constexpr size_t kPanelRows = 4;
#endif
// Two vectors for each of kPanelRows rows: together with the operands, what the registers hold.
constexpr size_t kPanelVectors = 2;

using Floats = float __attribute__((vector_size(kVectorBytes)));
using Doubles = double __attribute__((vector_size(kVectorBytes)));
using Words = uint32_t __attribute__((vector_size(kVectorBytes)));
using Ints = int32_t __attribute__((vector_size(kVectorBytes)));
using LongWords = uint64_t __attribute__((vector_size(kVectorBytes)));

template <class V>
NIBBLE_INLINE V load_vector(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}

template <class V>
NIBBLE_INLINE void store_vector(void* p, const V& v) {
  std::memcpy(p, &v, sizeof(V));
}

template <class To, class From>
NIBBLE_INLINE To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

#if NIBBLE_LANES == 16
NIBBLE_INLINE void multiply_add(Floats& sum, const Floats& a, const Floats& b) {
  sum = _mm512_fmadd_ps(a, b, sum);
}
NIBBLE_INLINE void multiply_add(Doubles& sum, const Doubles& a, const Doubles& b) {
  sum = _mm512_fmadd_pd(a, b, sum);
}
#elif NIBBLE_LANES == 8
NIBBLE_INLINE void multiply_add(Floats& sum, const Floats& a, const Floats& b) {
  sum = _mm256_fmadd_ps(a, b, sum);
}
NIBBLE_INLINE void multiply_add(Doubles& sum, const Doubles& a, const Doubles& b) {
  sum = _mm256_fmadd_pd(a, b, sum);
}
#elif NIBBLE_LANES == 4
NIBBLE_INLINE void multiply_add(Floats& sum, const Floats& a, const Floats& b) { sum = vfmaq_f32(sum, a, b); }
NIBBLE_INLINE void multiply_add(Doubles& sum, const Doubles& a, const Doubles& b) {
  sum = vfmaq_f64(sum, a, b);
}
#else
template <class V>
NIBBLE_INLINE void multiply_add(V& sum, const V& a, const V& b) {
  sum += a * b;
}
#endif

// An arithmetic: how elements become the units of a panel and how these are multiplied.
//   Element, Unit  in memory and in a panel; kStep elements of depth are in one unit
//   UnitVector     units of a panel
//   SumVector      a sum for each unit
//   kScaled        a panel starts with a float for each line of its width: what its units count
//   along_depth(p, factor)          units one after another in depth, from kStep elements each at p;
//                                   unit i of a vector is the one of step depth_of(i)
//   along_width(p, q, factors)      units side by side in width, from elements at p and, one deeper, at q
//   result(sum, row, columns)       Elements, of sums of a line of A with lines of B
template <class T, class V>
struct Exact {
  using Element = T;
  using Unit = T;
  using UnitVector = V;
  using SumVector = V;
  static constexpr bool kScaled = false;
  static constexpr size_t kStep = 1;
  static constexpr size_t kBlockDepth = 1536 / sizeof(T);  // a panel of A fits the first cache
  static constexpr size_t depth_of(size_t i) { return i; }
  static NIBBLE_INLINE V along_depth(const T* p, T) { return load_vector<V>(p); }
  static NIBBLE_INLINE V along_width(const T* p, const T*, const T*) { return load_vector<V>(p); }
  static NIBBLE_INLINE V spread(Unit unit) { return unit - V{}; }
  static NIBBLE_INLINE void multiply(V& sum, const V& a, const V& b) { multiply_add(sum, a, b); }
  static NIBBLE_INLINE V result(const V& sum, T, const T*) { return sum; }
};

using F32Arithmetic = Exact<float, Floats>;
using F64Arithmetic = Exact<double, Doubles>;

// Pairs of 16-bit integers, the earlier one in the lower half.
struct Int16Arithmetic {
  using Element = float;
  using Unit = uint32_t;
  using UnitVector = Words;
  using SumVector = Words;  // of signed numbers, modulo 2^32: only the final sum has to fit
  static constexpr bool kScaled = true;
  static constexpr size_t kStep = 2;
  static constexpr size_t kBlockDepth = kInt16BlockDepth;
  static constexpr size_t kLanes = kVectorBytes / sizeof(Unit);

  // The nearest integer in the low half of each word: a float of this size counts in ones.
  static NIBBLE_INLINE Words round(const float* p, const Floats& factor) {
    return same_bits<Words>(load_vector<Floats>(p) * factor + 12582912.f);
  }
  // Two vectors of floats; each 64-bit word of the result has a unit of the first in its lower half.
  static constexpr size_t depth_of(size_t i) { return i / 2 + i % 2 * (kLanes / 2); }
  static NIBBLE_INLINE Words along_depth(const float* p, float factor) {
    const Floats factors = factor - Floats{};
    const auto first = same_bits<LongWords>(round(p, factors));
    const auto second = same_bits<LongWords>(round(p + kLanes, factors));
    const LongWords low = (first & 0xFFFFu) | ((first >> 16) & 0xFFFF0000u);
    return same_bits<Words>(low | ((second & 0xFFFFu) << 32) | ((second & 0x0000FFFF00000000u) << 16));
  }
  static NIBBLE_INLINE Words along_width(const float* p, const float* q, const float* factors) {
    const auto factor = load_vector<Floats>(factors);
    return (round(p, factor) & 0xFFFFu) | (round(q, factor) << 16);
  }
  static NIBBLE_INLINE Words spread(Unit unit) { return unit - Words{}; }
  static NIBBLE_INLINE void multiply(Words& sum, const Words& a, const Words& b) {
#if NIBBLE_LANES == 16
    // Not the intrinsic: gcc 12 copies the sums of that before every use.
    asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#elif NIBBLE_LANES == 8
    sum += (Words)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    sum += (Words)((Ints)(a << 16) >> 16) * (Words)((Ints)(b << 16) >> 16);
    sum += (Words)((Ints)a >> 16) * (Words)((Ints)b >> 16);
#endif
  }
  static NIBBLE_INLINE Floats result(const Words& sum, float row, const float* columns) {
    return __builtin_convertvector((Ints)sum, Floats) * row * load_vector<Floats>(columns);
  }
};

// --- packing ---

// The lower or the upper halves of a and b: a0 b0 a1 b1 ...
template <size_t kFirst, class V, size_t... I>
NIBBLE_INLINE V interleave(const V& a, const V& b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, (kFirst + I / 2 + I % 2 * sizeof...(I))...);
}

// Each round moves the lowest bit of the row's number to the top of it and rotates on through the
// bits of the column's: after log2(n) of them the two have changed places.
template <class V, size_t n>
NIBBLE_INLINE void transpose(V (&tile)[n]) {
  NIBBLE_UNROLL
  for (size_t round = 1; round < n; round *= 2) {
    V next[n];
    NIBBLE_UNROLL
    for (size_t i = 0; i < n / 2; ++i) {
      next[2 * i] = interleave<0>(tile[i], tile[i + n / 2], std::make_index_sequence<n>());
      next[2 * i + 1] = interleave<n / 2>(tile[i], tile[i + n / 2], std::make_index_sequence<n>());
    }
    NIBBLE_UNROLL
    for (size_t i = 0; i < n; ++i) tile[i] = next[i];
  }
}

// Squares of the source are transposed in registers. factors: [kWidth], of the lines.
template <class A, size_t kWidth>
void pack_along_depth(const PanelSource<typename A::Element>& source, const typename A::Element* factors,
                      typename A::Unit* panel) {
  using T = typename A::Element;
  using V = typename A::UnitVector;
  constexpr size_t kLanes = sizeof(V) / sizeof(typename A::Unit);
  constexpr size_t kTileDepth = kLanes * A::kStep;
  for (size_t k = 0; k < source.depth; k += kTileDepth) {
    const size_t depth = std::min(kTileDepth, source.depth - k);
    const size_t steps = (depth + A::kStep - 1) / A::kStep;
    for (size_t left = 0; left < kWidth; left += kLanes) {
      const T* const corner = source.data + left * source.stride + k;
      V tile[kLanes];
      if (depth == kTileDepth && left + kLanes <= source.width) {
        NIBBLE_UNROLL
        for (size_t i = 0; i < kLanes; ++i) {
          tile[i] = A::along_depth(corner + i * source.stride, factors[left + i]);
        }
      } else {
        for (size_t i = 0; i < kLanes; ++i) {
          T row[kTileDepth] = {};
          if (left + i < source.width) std::memcpy(row, corner + i * source.stride, depth * sizeof(T));
          tile[i] = A::along_depth(row, factors[left + i]);
        }
      }
      transpose(tile);
      typename A::Unit* const out = panel + k / A::kStep * kWidth + left;
      if (steps == kLanes) {
        NIBBLE_UNROLL
        for (size_t i = 0; i < kLanes; ++i) store_vector(out + A::depth_of(i) * kWidth, tile[i]);
      } else {
        for (size_t i = 0; i < kLanes; ++i) {
          if (A::depth_of(i) < steps) store_vector(out + A::depth_of(i) * kWidth, tile[i]);
        }
      }
    }
  }
}

// Sums of squares of each line of a panel: [kWidth], 0 past the end.
template <size_t kWidth>
void squares_along_depth(const PanelSource<float>& source, float* squares) {
  constexpr size_t kLanes = kVectorBytes / sizeof(float);
  for (size_t i = 0; i < kWidth; ++i) {
    squares[i] = 0.f;
    if (i >= source.width) continue;
    const float* const line = source.data + i * source.stride;
    Floats sums[4] = {};  // hide the latency of the addition
    size_t k = 0;
    for (; k + 4 * kLanes <= source.depth; k += 4 * kLanes) {
      NIBBLE_UNROLL
      for (size_t v = 0; v < 4; ++v) {
        const auto x = load_vector<Floats>(line + k + v * kLanes);
        sums[v] += x * x;
      }
    }
    const Floats sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (size_t v = 0; v < kLanes; ++v) squares[i] += sum[v];
    for (; k < source.depth; ++k) squares[i] += line[k] * line[k];
  }
}

// Of `count` neighbouring lines that lie across the rows of memory. A row is read from end to end, which
// is why this is not done panel by panel.
inline void squares_along_width(const PanelSource<float>& source, size_t count, float* squares) {
  constexpr size_t kLanes = kVectorBytes / sizeof(float);
  std::memset(squares, 0, count * sizeof(float));
  for (size_t k = 0; k < source.depth; ++k) {
    const float* const row = source.data + k * source.stride;
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const auto x = load_vector<Floats>(row + i);
      store_vector(squares + i, load_vector<Floats>(squares + i) + x * x);
    }
    for (; i < count; ++i) squares[i] += row[i] * row[i];
  }
}

template <class A, size_t kWidth>
void pack_along_width(const PanelSource<typename A::Element>& source, const typename A::Element* factors,
                      typename A::Unit* panel) {
  using T = typename A::Element;
  constexpr size_t kLanes = sizeof(typename A::UnitVector) / sizeof(typename A::Unit);
  for (size_t k = 0; k < source.depth; k += A::kStep) {
    const T* first = source.data + k * source.stride;
    const T* second = first + source.stride;
    T rows[2][kWidth];
    if (source.width < kWidth || source.depth - k < A::kStep) {
      std::memset(rows, 0, sizeof(rows));
      const size_t width = std::min(kWidth, source.width);
      std::memcpy(rows[0], first, width * sizeof(T));
      if (A::kStep == 2 && source.depth - k > 1) std::memcpy(rows[1], second, width * sizeof(T));
      first = rows[0];
      second = rows[1];
    }
    NIBBLE_UNROLL
    for (size_t i = 0; i < kWidth; i += kLanes) {
      store_vector(panel + k / A::kStep * kWidth + i, A::along_width(first + i, second + i, factors + i));
    }
  }
}

// Bytes before the units of a panel.
template <class A, size_t kWidth>
constexpr size_t head_bytes() {
  return A::kScaled ? kWidth * sizeof(typename A::Element) : 0;
}

template <class A, size_t kWidth>
void pack_panel(const PanelSource<typename A::Element>& source, void* panel) {
  auto* const units =
      reinterpret_cast<typename A::Unit*>(static_cast<std::byte*>(panel) + head_bytes<A, kWidth>());
  typename A::Element factors[kWidth];
  if constexpr (A::kScaled) {
    float own[kWidth];
    if (source.along_depth) squares_along_depth<kWidth>(source, own);
    choose_scales(source, source.along_depth ? own : source.squares, kWidth, factors,
                  static_cast<float*>(panel));
  }
  if (source.along_depth) return pack_along_depth<A, kWidth>(source, factors, units);
  return pack_along_width<A, kWidth>(source, factors, units);
}

// --- products ---

// a: kPanelRows units for each step, kAWidth apart; b: kPanelVectors vectors.
template <class A, size_t kAWidth>
void multiply_panels(const void* a, const void* b, size_t steps, typename A::Element* c, size_t stride,
                     bool accumulate, bool negate) {
  using V = typename A::SumVector;
  constexpr size_t kLanes = sizeof(V) / sizeof(typename A::Element);
  NIBBLE_UNROLL
  for (size_t i = 0; i < kPanelRows; ++i) {
    __builtin_prefetch(c + i * stride, 1);
    __builtin_prefetch(c + i * stride + kPanelVectors * kLanes - 1, 1);
  }
  V sums[kPanelRows][kPanelVectors];
  NIBBLE_UNROLL
  for (size_t i = 0; i < kPanelRows; ++i) {
    NIBBLE_UNROLL
    for (size_t j = 0; j < kPanelVectors; ++j) sums[i][j] = V{};
  }
  const auto* const a_scales = static_cast<const typename A::Element*>(a);
  const auto* const b_scales = static_cast<const typename A::Element*>(b);
  const auto* a_unit =
      reinterpret_cast<const typename A::Unit*>(static_cast<const std::byte*>(a) + head_bytes<A, kAWidth>());
  const auto* b_unit = reinterpret_cast<const typename A::Unit*>(static_cast<const std::byte*>(b) +
                                                                 head_bytes<A, kPanelVectors * kLanes>());
  for (size_t step = 0; step < steps; ++step) {
    typename A::UnitVector columns[kPanelVectors];
    NIBBLE_UNROLL
    for (size_t j = 0; j < kPanelVectors; ++j) {
      columns[j] = load_vector<typename A::UnitVector>(b_unit + j * kLanes);
    }
    NIBBLE_UNROLL
    for (size_t i = 0; i < kPanelRows; ++i) {
      const typename A::UnitVector row = A::spread(a_unit[i]);
      NIBBLE_UNROLL
      for (size_t j = 0; j < kPanelVectors; ++j) A::multiply(sums[i][j], row, columns[j]);
    }
    a_unit += kAWidth;
    b_unit += kPanelVectors * kLanes;
  }
  NIBBLE_UNROLL
  for (size_t i = 0; i < kPanelRows; ++i) {
    NIBBLE_UNROLL
    for (size_t j = 0; j < kPanelVectors; ++j) {
      typename A::Element* const out = c + i * stride + j * kLanes;
      auto result = A::result(sums[i][j], A::kScaled ? a_scales[i] : 0, b_scales + j * kLanes);
      if (negate) result = -result;
      if (accumulate) result = load_vector<decltype(result)>(out) + result;
      store_vector(out, result);
    }
  }
}

template <class A>
GemmKernels<typename A::Element> gemm_kernels() {
  constexpr size_t kLanes = kVectorBytes / sizeof(typename A::Unit);
  // Whole vectors, so that packing never stores a part of one.
  constexpr size_t kAWidth = (kPanelRows + kLanes - 1) / kLanes * kLanes;
  constexpr size_t kBWidth = kPanelVectors * kLanes;
  static_assert(kPanelRows * kBWidth <= kMaxRegisterBlock);
  GemmKernels<typename A::Element> kernels = {
      .rows = kPanelRows,
      .cols = kBWidth,
      .block_depth = A::kBlockDepth,
      .step = A::kStep,
      .a_step_bytes = kAWidth * sizeof(typename A::Unit),
      .b_step_bytes = kBWidth * sizeof(typename A::Unit),
      .a_head_bytes = head_bytes<A, kAWidth>(),
      .b_head_bytes = head_bytes<A, kBWidth>(),
      .pack_a = pack_panel<A, kAWidth>,
      .pack_b = pack_panel<A, kBWidth>,
      .multiply = multiply_panels<A, kAWidth>,
  };
  if constexpr (A::kScaled) kernels.squares = squares_along_width;
  return kernels;
}

inline GemmKernels<float> int16_kernels() { return gemm_kernels<Int16Arithmetic>(); }
inline GemmKernels<float> f32_kernels() { return gemm_kernels<F32Arithmetic>(); }
inline GemmKernels<double> f64_kernels() { return gemm_kernels<F64Arithmetic>(); }

}  // namespace nibble::linalg::NIBBLE_NAMESPACE
