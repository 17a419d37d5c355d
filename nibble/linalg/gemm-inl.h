// Panels and their products (gemm_kernels.h), compiled once per instruction set. On the compiler's
// vector types, because float, double and 32-bit pairs of bfloat16 are all packed the same way.

namespace nibble::linalg::NIBBLE_NAMESPACE {

#if NIBBLE_LANES == 16
constexpr size_t kVectorBytes = 64;
constexpr size_t kPanelRows = 14;
#elif NIBBLE_LANES == 8
constexpr size_t kVectorBytes = 32;
constexpr size_t kPanelRows = 6;
#else
constexpr size_t kVectorBytes = 16;  // plain C++ here, which any x86-64 does with SSE2
constexpr size_t kPanelRows = 4;
#endif
// Two vectors for each of kPanelRows rows: together with the operands, what the registers hold.
constexpr size_t kPanelVectors = 2;

using Floats = float __attribute__((vector_size(kVectorBytes)));
using Doubles = double __attribute__((vector_size(kVectorBytes)));
using Words = uint32_t __attribute__((vector_size(kVectorBytes)));

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
#else
template <class V>
NIBBLE_INLINE void multiply_add(V& sum, const V& a, const V& b) {
  sum += a * b;
}
#endif

// An arithmetic: how elements become the units of a panel and how these are multiplied.
//   Element, Unit  in memory and in a panel; kStep elements of depth are in one unit
//   UnitVector     units of a panel
//   SumVector      Elements: a result for each unit
//   along_depth(p)      units one after another in depth, from kStep elements each at p
//   along_width(p, q)   units side by side in width, from elements at p and, one deeper, at q
template <class T, class V>
struct Exact {
  using Element = T;
  using Unit = T;
  using UnitVector = V;
  using SumVector = V;
  static constexpr size_t kStep = 1;
  static constexpr size_t kBlockDepth = 1536 / sizeof(T);  // a panel of A fits the first cache
  static NIBBLE_INLINE V along_depth(const T* p) { return load_vector<V>(p); }
  static NIBBLE_INLINE V along_width(const T* p, const T*) { return load_vector<V>(p); }
  static NIBBLE_INLINE V spread(Unit unit) { return unit - V{}; }
  static NIBBLE_INLINE void multiply(V& sum, const V& a, const V& b) { multiply_add(sum, a, b); }
};

using F32Arithmetic = Exact<float, Floats>;
using F64Arithmetic = Exact<double, Doubles>;

// Rounded to bfloat16 but kept as float: products are exact. Sums differ from those of vdpbf16ps in
// their last bits, since that flushes subnormal numbers to zero and adds two products at a time.
struct RoundedArithmetic : F32Arithmetic {
  static NIBBLE_INLINE Floats round(const Floats& x) {
    Words bits;
    std::memcpy(&bits, &x, sizeof(bits));
    // As float_to_bf16: half of the discarded part, plus one if the kept part is odd.
    const Words rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u;
    const Words is_number = (Words)((bits & 0x7FFFFFFFu) <= 0x7F800000u);
    const Words result = (rounded & is_number) | (bits & ~is_number);
    Floats y;
    std::memcpy(&y, &result, sizeof(y));
    return y;
  }
  static NIBBLE_INLINE Floats along_depth(const float* p) { return round(load_vector<Floats>(p)); }
  static NIBBLE_INLINE Floats along_width(const float* p, const float*) {
    return round(load_vector<Floats>(p));
  }
};

#ifdef NIBBLE_LINALG_BF16
// Pairs of bfloat16, the earlier one in the lower half.
struct Bf16Arithmetic {
  using Element = float;
  using Unit = uint32_t;
  using UnitVector = Words;
  using SumVector = Floats;
  static constexpr size_t kStep = 2;
  static constexpr size_t kBlockDepth = 768;
  static NIBBLE_INLINE Words round(const float* low, const float* high) {
    return (Words)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
  }
  static NIBBLE_INLINE Words along_depth(const float* p) { return round(p, p + 16); }
  static NIBBLE_INLINE Words along_width(const float* p, const float* q) {
    const __m512i interleave = _mm512_add_epi32(
        _mm512_set1_epi32(0x00100000),
        _mm512_mullo_epi32(_mm512_set1_epi32(0x00010001),
                           _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
    return (Words)_mm512_permutexvar_epi16(interleave, (__m512i)round(p, q));
  }
  static NIBBLE_INLINE Words spread(Unit unit) { return unit - Words{}; }
  static NIBBLE_INLINE void multiply(Floats& sum, const Words& a, const Words& b) {
    sum = _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  }
};
#endif

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

// Squares of the source are transposed in registers.
template <class A, size_t kWidth>
void pack_along_depth(const PanelSource<typename A::Element>& source, typename A::Unit* panel) {
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
        for (size_t i = 0; i < kLanes; ++i) tile[i] = A::along_depth(corner + i * source.stride);
      } else {
        for (size_t i = 0; i < kLanes; ++i) {
          T row[kTileDepth] = {};
          if (left + i < source.width) std::memcpy(row, corner + i * source.stride, depth * sizeof(T));
          tile[i] = A::along_depth(row);
        }
      }
      transpose(tile);
      typename A::Unit* const out = panel + k / A::kStep * kWidth + left;
      if (steps == kLanes) {
        NIBBLE_UNROLL
        for (size_t i = 0; i < kLanes; ++i) store_vector(out + i * kWidth, tile[i]);
      } else {
        for (size_t i = 0; i < steps; ++i) store_vector(out + i * kWidth, tile[i]);
      }
    }
  }
}

template <class A, size_t kWidth>
void pack_along_width(const PanelSource<typename A::Element>& source, typename A::Unit* panel) {
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
      store_vector(panel + k / A::kStep * kWidth + i, A::along_width(first + i, second + i));
    }
  }
}

template <class A, size_t kWidth>
void pack_panel(const PanelSource<typename A::Element>& source, void* panel) {
  typename A::Unit* const units = static_cast<typename A::Unit*>(panel);
  if (source.along_depth) return pack_along_depth<A, kWidth>(source, units);
  return pack_along_width<A, kWidth>(source, units);
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
  const typename A::Unit* a_unit = static_cast<const typename A::Unit*>(a);
  const typename A::Unit* b_unit = static_cast<const typename A::Unit*>(b);
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
      V result = negate ? -sums[i][j] : sums[i][j];
      if (accumulate) result = load_vector<V>(out) + result;
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
  return {
      .rows = kPanelRows,
      .cols = kBWidth,
      .block_depth = A::kBlockDepth,
      .step = A::kStep,
      .a_step_bytes = kAWidth * sizeof(typename A::Unit),
      .b_step_bytes = kBWidth * sizeof(typename A::Unit),
      .pack_a = pack_panel<A, kAWidth>,
      .pack_b = pack_panel<A, kBWidth>,
      .multiply = multiply_panels<A, kAWidth>,
  };
}

}  // namespace nibble::linalg::NIBBLE_NAMESPACE
