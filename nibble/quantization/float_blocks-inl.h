// The functions of float_blocks.h, written once on vectors of kLanes elements and compiled once per
// instruction set: the including file defines NIBBLE_BLOCKS_NAMESPACE and NIBBLE_BLOCKS_LANES.

namespace nibble::NIBBLE_BLOCKS_NAMESPACE {

constexpr size_t kLanes = NIBBLE_BLOCKS_LANES;
using Bytes = uint8_t __attribute__((vector_size(kLanes)));
using HalfBytes = uint8_t __attribute__((vector_size(kLanes / 2)));
using Halves = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));
using Words = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
using Pairs = uint64_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));

constexpr uint32_t kMagnitude = 0x7FFFFFFFu;

template <class V, class T>
inline V load(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <class V, class T>
inline void store(T* p, const V& v) {
  std::memcpy(p, &v, sizeof(v));
}

// The same bits as another type; std::bit_cast has not got the region's instruction set.
template <class To, class From>
inline To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <class V>
inline V choose(const Ints& condition, const V& yes, const V& no) {
  return as<V>((as<Ints>(yes) & condition) | (as<Ints>(no) & ~condition));
}

// As fp16_to_float. The product moves the exponent's bias, and makes a subnormal half a normal float.
inline Floats widen_half(const Words& half) {
  const Words magnitude = (half & 0x7FFFu) << 13;
  const Floats finite = as<Floats>(magnitude) * 0x1p112f;
  const Floats special = as<Floats>(magnitude | 0x7F800000u);
  const Floats value = choose((Ints)(magnitude >= (0x7C00u << 13)), special, finite);
  return as<Floats>(as<Words>(value) | ((half & 0x8000u) << 16));
}

// Returns how many were loaded: what is left is less than a vector.
inline size_t load_16_bits(const std::byte* source, bool is_half, size_t count, float* out) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Words bits = __builtin_convertvector(load<Halves>(source + i * sizeof(uint16_t)), Words);
    store(out + i, is_half ? widen_half(bits) : as<Floats>(bits << 16));
  }
  return i;
}

inline float largest_magnitude(const float* values, size_t count) {
  // As integers magnitudes are in the same order, and NaN behind infinity.
  Ints largest = {};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Ints bits = as<Ints>(load<Words>(values + i) & kMagnitude);
    largest = choose((Ints)(bits > largest), bits, largest);
  }
  int32_t result = 0;
  for (size_t lane = 0; lane < kLanes; ++lane) result = result > largest[lane] ? result : largest[lane];
  for (; i < count; ++i) {
    int32_t bits = 0;
    std::memcpy(&bits, values + i, sizeof(bits));
    bits &= static_cast<int32_t>(kMagnitude);
    result = result > bits ? result : bits;
  }
  return as<float>(result);
}

inline void block_magnitudes(const float* values, size_t count, size_t blocksize, float* largest) {
  for (size_t i = 0; i < count; i += blocksize) *largest++ = largest_magnitude(values + i, blocksize);
}

inline float clamped(float value) { return value > 1.f ? 1.f : value < -1.f ? -1.f : value; }

inline void scale_and_clamp(float* values, size_t count, size_t blocksize, const float* factors) {
  const Floats one = 1.f - Floats{};
  for (const float* const end = values + count; values < end; values += blocksize) {
    const float factor = *factors++;
    size_t i = 0;
    for (; i + kLanes <= blocksize; i += kLanes) {
      Floats x = load<Floats>(values + i) * factor;
      x = choose((Ints)(x > one), one, x);
      x = choose((Ints)(x < -one), -one, x);
      store(values + i, x);
    }
    for (; i < blocksize; ++i) values[i] = clamped(values[i] * factor);
  }
}

// The bounds to search in four steps, and the codes; each in as many vectors as hold sixteen.
struct IntervalTree {
  explicit IntervalTree(const CodeIntervals& intervals) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      for (size_t part = 0; part < kParts; ++part) {
        bounds[part][lane] = intervals.bounds[(lane + part * kLanes) % 15];
        codes[part][lane] = intervals.codes[(lane + part * kLanes) % 16];
      }
    }
  }

  // table[index] lane by lane; index is below 16.
  template <class V>
  static V look_up(const V* table, const Ints& index) {
#if NIBBLE_BLOCKS_LANES == 16
    return as<V>(_mm512_permutexvar_epi32(as<__m512i>(index), as<__m512i>(table[0])));
#elif NIBBLE_BLOCKS_LANES == 8
    const __m256i place = as<__m256i>(index);  // its lowest three bits count
    const V low = as<V>(_mm256_permutevar8x32_epi32(as<__m256i>(table[0]), place));
    const V high = as<V>(_mm256_permutevar8x32_epi32(as<__m256i>(table[1]), place));
    return choose((Ints)(index > 7), high, low);
#else
    V value = {};
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const auto place = static_cast<size_t>(index[lane]);
      value[lane] = table[place / kLanes][place % kLanes];
    }
    return value;
#endif
  }

  Ints code_of(const Floats& x) const {
    Ints below = Ints{} + 8;
    below &= (Ints)(x > bounds[7 / kLanes][7 % kLanes]);
    for (int32_t step = 4; step > 0; step /= 2) {
      below += (Ints)(x > look_up(bounds, below + (step - 1))) & step;
    }
    return look_up(codes, below);
  }

  static constexpr size_t kParts = 16 / kLanes;
  Floats bounds[kParts];
  Ints codes[kParts];
};

inline void pack_codes(const float* values, size_t count, const CodeIntervals& intervals, uint8_t* packed) {
  const IntervalTree tree(intervals);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Ints code = tree.code_of(load<Floats>(values + i));
    // Two neighbours lie in one 64-bit lane, the first in its low half.
    const Pairs pairs = as<Pairs>(code);
    const Pairs bytes = (pairs << 4 | pairs >> 32) & 0xFFu;
    store(packed + i / 2, __builtin_convertvector(bytes, HalfBytes));
  }
  for (; i < count; i += 2) {
    int32_t codes[2];
    for (size_t j = 0; j < 2; ++j) {
      size_t below = 0;
      while (below < 15 && values[i + j] > intervals.bounds[below]) ++below;
      codes[j] = intervals.codes[below];
    }
    packed[i / 2] = static_cast<uint8_t>(codes[0] << 4 | codes[1]);
  }
}

inline void scale_and_round(const float* values, size_t count, float factor, int8_t* codes) {
  // A sum that has no room for a fraction rounds to nearest, ties to even.
  constexpr float kNoFraction = 0x1.8p23f;
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Floats rounded = (load<Floats>(values + i) * factor + kNoFraction) - kNoFraction;
    store(codes + i, __builtin_convertvector(__builtin_convertvector(rounded, Ints), Bytes));
  }
  for (; i < count; ++i) codes[i] = static_cast<int8_t>((values[i] * factor + kNoFraction) - kNoFraction);
}

constexpr FloatBlockKernels kKernels = {load_16_bits,    largest_magnitude, block_magnitudes,
                                        scale_and_clamp, pack_codes,        scale_and_round};

}  // namespace nibble::NIBBLE_BLOCKS_NAMESPACE
