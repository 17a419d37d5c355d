// Compiled once per instruction set: the including file defines, inside its region, a struct Simd with
//   kLanes    outputs in a register, 8 or 16
//   kStrips, kRows  of a tile, whose sums fit the registers; kStripsOfFewRows  of one with kFewRows
//   kPackedRows     up to which codes of less than a byte are multiplied as they are
//   Codes     4 * kLanes bytes: load_codes, store_codes; of each byte:
//             shifted<n>(codes)  byte >> n, or << -n; what crosses the border of a byte may be anything
//             field<n, mask>(codes)  (byte >> n) & mask
//             join(a, b)  bits 0 1 4 5 of a, 2 3 6 7 of b
//             lookup_low, lookup_high(table, codes)  what a table of 16 has for the low, the high half
//             broadcast_four(activations): to each lane
//   Sum<Form> exact sums of a span: clear(), add(codes, activations), end_block(), integers(); no
//             constructor, since implicit functions do not get the region's instruction set
//   Integers  of 32 bits: high_and_low(high, low)  256 * high + low
//             floats(integers)
//             centred(codes, j): byte j of each lane, less 128, as floats
//   Floats    zero, broadcast, load(float*), load_half, load_bytes, store, add, mul, fma, negative_fma
//   prefetch (to the L2 cache), prefetch_near (to the L1 cache)

namespace nibble::kernels {
namespace {

constexpr size_t lines_per_block(Form form) {
  return form == Form::kTwoBits       ? lines_per_block(CodeForm::kTwoBits)
         : form == Form::kThreeBits   ? lines_per_block(CodeForm::kThreeBits)
         : form == Form::kNibbles     ? lines_per_block(CodeForm::kNibbles)
         : form == Form::kNibbleTable ? lines_per_block(CodeForm::kNibbleTable)
                                      : lines_per_block(CodeForm::kBytes);
}

// A block is multiplied in steps of four inputs, in the order in which activations are stored.
constexpr size_t kSteps = kBlockInputs / 4;

// One token, of a row or two.
constexpr size_t kFewRows = 2;

// One token multiplies as fast as memory is read: lines go to the L1 cache, over the ends of pages, where the
// processor's own prefetcher begins anew (without: 69 % of it, with: 85 % and more). Several rows take longer
// for a line, and the L2 cache is near enough.
constexpr size_t kPrefetchNear = 4096;
constexpr size_t kPrefetchFar = 8192;

NIBBLE_INLINE Simd::Floats load_scales(const Strips& w, const void* values, size_t i) {
  return w.half_scales ? Simd::load_half(static_cast<const uint16_t*>(values) + i)
                       : Simd::load(static_cast<const float*>(values) + i);
}

// Strips that a tile covers: code lines, scales and zero points of strip s lie `codes_stride` bytes and one
// strip's worth of groups behind those of strip s - 1.
struct TilePlace {
  size_t strip;          // the first
  const uint8_t* codes;  // of it, perhaps unpacked
  size_t codes_stride;
  size_t lane;  // outputs [lane, lane + kLanes) of each strip
  size_t row;
  size_t origin;  // the strip whose first output is column 0 of y
};

// The line that step t of a block takes its codes from. Of three bits one of nibbles is made, in which bit 3
// may be anything. Lines are loaded once each: the compiler sees that the steps share them.
template <Form F, size_t t>
NIBBLE_INLINE typename Simd::Codes step_line(const uint8_t* block) {
  if constexpr (F == Form::kThreeBits) {
    constexpr int kEight = t / 2;
    const typename Simd::Codes low = Simd::load_codes(block + kEight / 2 * kLineBytes);
    const typename Simd::Codes high = Simd::load_codes(block + 2 * kLineBytes);
    return Simd::join(Simd::template shifted<kEight % 2 * 2>(low), Simd::template shifted<kEight - 2>(high));
  } else {
    return Simd::load_codes(block + t * lines_per_block(F) / kSteps * kLineBytes);
  }
}

// The codes of step t of a block as bytes: of the even inputs of eight, then of the odd ones, or of four
// neighbours where the weight is stored in bytes.
template <Form F, size_t t>
NIBBLE_INLINE typename Simd::Codes step_codes(const typename Simd::Codes& table, const uint8_t* block) {
  const typename Simd::Codes line = step_line<F, t>(block);
  if constexpr (F == Form::kTwoBits) {
    return Simd::template field<t / 2 % 2 * 2 + t % 2 * 4, 0x03>(line);
  } else if constexpr (F == Form::kThreeBits) {
    return Simd::template field<t % 2 * 4, 0x07>(line);
  } else if constexpr (F == Form::kNibbles) {
    return Simd::template field<t % 2 * 4, 0x0F>(line);
  } else if constexpr (F == Form::kNibbleTable) {
    return t % 2 == 0 ? Simd::lookup_low(table, line) : Simd::lookup_high(table, line);
  } else {
    return line;
  }
}

// Asks for line t of a block that comes later, if it has as many.
template <Form F, size_t t, bool kOneToken>
NIBBLE_INLINE void prefetch_line(const uint8_t* block) {
  if constexpr (F != Form::kSmallBytes && t < lines_per_block(F)) {  // small bytes were just unpacked
    const uint8_t* const line = block + t * kLineBytes;
    kOneToken ? Simd::prefetch_near(line + kPrefetchNear) : Simd::prefetch(line + kPrefetchFar);
  }
}

// Loops over the sums of a tile are pack expansions: GCC keeps an array in registers only where its indices
// are constants before it unrolls loops, and these loops are what a prompt's time goes into.
template <size_t S, size_t M>
using Places = std::make_index_sequence<S * M>;  // sum of strip s and row m: s * M + m

template <class Sum, size_t... i>
NIBBLE_INLINE void clear(Sum* dots, std::index_sequence<i...>) {
  (dots[i].clear(), ...);
}

template <class Sum, size_t... i>
NIBBLE_INLINE void end_block(Sum* dots, std::index_sequence<i...>) {
  (dots[i].end_block(), ...);
}

template <size_t... i>
NIBBLE_INLINE void set_zero(typename Simd::Floats* sums, std::index_sequence<i...>) {
  ((sums[i] = Simd::zero()), ...);
}

template <size_t... i>
NIBBLE_INLINE void store_zeros(float* totals, std::index_sequence<i...>) {
  (Simd::store(totals + i * Simd::kLanes, Simd::zero()), ...);
}

// Of a token whose rows (P of them) begin at dots.
template <size_t P, class Sum>
NIBBLE_INLINE typename Simd::Floats token_dot(const Sum* dots) {
  if constexpr (P == 1) return Simd::floats(dots->integers());
  return Simd::floats(Simd::high_and_low(dots[0].integers(), dots[P - 1].integers()));
}

// sums += scale of the span * dots, for T tokens of P rows.
template <size_t T, size_t P, class Sum, size_t... i>
NIBBLE_INLINE void add_span(const Sum* dots, const float* scales, size_t scale_stride,
                            typename Simd::Floats* sums, std::index_sequence<i...>) {
  ((sums[i] = Simd::fma(Simd::broadcast(scales[i % T * scale_stride]), token_dot<P>(dots + i * P), sums[i])),
   ...);
}

// The next four inputs of row m.
template <size_t M, size_t m, class Sum, size_t... s>
NIBBLE_INLINE void add_row(const typename Simd::Codes* codes, const int8_t* inputs, Sum* dots,
                           std::index_sequence<s...>) {
  const typename Simd::Codes four = Simd::broadcast_four(inputs);
  (dots[s * M + m].add(codes[s], four), ...);
}

template <size_t S, size_t M, class Sum, size_t... m>
NIBBLE_INLINE void add_rows(const typename Simd::Codes* codes, const int8_t* inputs, size_t stride, Sum* dots,
                            std::index_sequence<m...>) {
  (add_row<M, m>(codes, inputs + m * stride, dots, std::make_index_sequence<S>()), ...);
}

// Step t of S strips.
template <Form F, size_t t, bool kOneToken, size_t... s>
NIBBLE_INLINE void load_step(const typename Simd::Codes& table, const uint8_t* block, size_t codes_stride,
                             typename Simd::Codes* codes, std::index_sequence<s...>) {
  (prefetch_line<F, t, kOneToken>(block + s * codes_stride), ...);
  ((codes[s] = step_codes<F, t>(table, block + s * codes_stride)), ...);
}

// A block of inputs, from step t on: adds to the dot products of S strips and M rows.
template <Form F, size_t S, size_t M, size_t t = 0>
NIBBLE_INLINE void tile_block(const typename Simd::Codes& table, const uint8_t* block, size_t codes_stride,
                              const int8_t* inputs, size_t stride, typename Simd::template Sum<F>* dots) {
  if constexpr (t == kSteps) {
    end_block(dots, Places<S, M>());
  } else {
    typename Simd::Codes codes[S];
    load_step<F, t, M <= kFewRows>(table, block, codes_stride, codes, std::make_index_sequence<S>());
    add_rows<S, M>(codes, inputs + 4 * t, stride, dots, std::make_index_sequence<M>());
    tile_block<F, S, M, t + 1>(table, block, codes_stride, inputs, stride, dots);
  }
}

// A group of an output: scale, and zero or offset.
struct GroupScale {
  typename Simd::Floats scale;
  typename Simd::Floats shift;
};

// i: of the first of the outputs in Strips::scales.
NIBBLE_INLINE GroupScale group_scale(const Strips& w, size_t i, bool has_offsets) {
  const typename Simd::Floats scale = load_scales(w, w.scales, i);
  if (has_offsets) return {scale, load_scales(w, w.offsets, i)};
  return {scale, w.zeros != nullptr ? Simd::load_bytes(w.zeros + i) : Simd::broadcast(w.zero)};
}

// total + scale * (sum - zero * input sum), or total + scale * sum + offset * input sum.
NIBBLE_INLINE typename Simd::Floats with_group(const GroupScale& group, bool has_offsets,
                                               typename Simd::Floats sum, typename Simd::Floats input_sum,
                                               typename Simd::Floats total) {
  if (has_offsets) return Simd::fma(group.shift, input_sum, Simd::fma(group.scale, sum, total));
  return Simd::fma(group.scale, Simd::negative_fma(group.shift, input_sum, sum), total);
}

// Adds the sums of group g to the totals of T tokens, of which at.row / P is the first.
template <size_t S, size_t T, size_t P>
NIBBLE_INLINE void add_group(const Strips& w, const TilePlace& at, size_t g, const QuantizedInputs& x,
                             const typename Simd::Floats* sums, float* totals) {
  const size_t num_groups = w.group_ends.size();
  const float* const input_sums = x.sums + at.row / P * num_groups + g;
  const bool has_offsets = w.offsets != nullptr;
  NIBBLE_UNROLL
  for (size_t s = 0; s < S; ++s) {
    const GroupScale group =
        group_scale(w, ((at.strip + s) * num_groups + g) * kStripOutputs + at.lane, has_offsets);
    NIBBLE_UNROLL
    for (size_t t = 0; t < T; ++t) {
      float* const total = totals + (s * T + t) * Simd::kLanes;
      Simd::store(total, with_group(group, has_offsets, sums[s * T + t],
                                    Simd::broadcast(input_sums[t * num_groups]), Simd::load(total)));
    }
  }
}

// S strips for M rows, P of a token. Dot products and the sums of a group fill the registers; totals are
// touched once per group and live in the L1 cache.
// totals: [S][M / P][kLanes]
template <Form F, size_t S, size_t M, size_t P>
void tile(const Strips& w, const TilePlace& at, const QuantizedInputs& x, float* totals) {
  typename Simd::Codes table = {};
  if constexpr (F == Form::kNibbleTable) table = Simd::load_table(w.table);
  const uint8_t* codes = at.codes + 4 * at.lane;
  const int8_t* inputs = x.codes + at.row * x.stride;
  constexpr size_t kTokens = M / P;
  using Tokens = Places<S, kTokens>;
  const float* const scales = x.scales + at.row / P * x.scale_stride;
  store_zeros(totals, Tokens());
  size_t span = 0;
  size_t block = 0;
  for (size_t g = 0; g < w.group_ends.size(); ++g) {
    typename Simd::Floats sums[S * kTokens];
    set_zero(sums, Tokens());
    for (; span < w.group_ends[g]; ++span) {
      typename Simd::template Sum<F> dots[S * M];
      clear(dots, Places<S, M>());
      for (; block < w.span_ends[span]; ++block) {
        tile_block<F, S, M>(table, codes, at.codes_stride, inputs, x.stride, dots);
        codes += lines_per_block(F) * kLineBytes;
        inputs += kBlockInputs;
      }
      add_span<kTokens, P>(dots, scales + span, x.scale_stride, sums, Tokens());
    }
    add_group<S, kTokens, P>(w, at, g, x, sums, totals);
  }
}

NIBBLE_INLINE void store_outputs(typename Simd::Floats values, size_t count, float* out) {
  if (count >= Simd::kLanes) return Simd::store(out, values);
  alignas(64) float lanes[Simd::kLanes];
  Simd::store(lanes, values);
  std::memcpy(out, lanes, count * sizeof(float));
}

// S strips for the rows [at.row, end), of which M at a time, P of a token; returns where the rest begins.
template <Form F, size_t S, size_t M, size_t P>
size_t tiles_of(const Strips& w, TilePlace at, size_t end, const QuantizedInputs& x, MatrixView<float> y) {
  for (; at.row + M <= end; at.row += M) {
    for (at.lane = 0; at.lane < kStripOutputs; at.lane += Simd::kLanes) {
      alignas(64) float totals[S * (M / P) * Simd::kLanes];
      tile<F, S, M, P>(w, at, x, totals);
      for (size_t s = 0; s < S; ++s) {
        const size_t first = (at.strip + s) * kStripOutputs + at.lane;
        if (first >= w.out_features) continue;
        for (size_t t = 0; t < M / P; ++t) {
          store_outputs(Simd::load(totals + (s * (M / P) + t) * Simd::kLanes), w.out_features - first,
                        y.row(at.row / P + t) + first - at.origin * kStripOutputs);
        }
      }
    }
  }
  return at.row;
}

// All rows, P of a token: as many as fit the registers at a time, and the rest in smaller tiles.
template <Form F, size_t S, size_t P>
void strip_rows(const Strips& w, TilePlace at, const QuantizedInputs& x, MatrixView<float> y) {
  if constexpr (S > Simd::kStrips) {  // for few rows alone
    at.row = tiles_of<F, S, kFewRows, P>(w, at, x.rows, x, y);
    if constexpr (P == 1) tiles_of<F, S, 1, P>(w, at, x.rows, x, y);
    return;
  }
  // Two rows of a token share a sum.
  constexpr size_t kMost = P == 2 && Simd::kRows == 6 ? 8 : Simd::kRows;
  static_assert(kMost == 4 || kMost == 6 || kMost == 8);
  if constexpr (kMost == 8) at.row = tiles_of<F, S, kMost, P>(w, at, x.rows, x, y);
  if constexpr (kMost == 6) {
    // Two tiles of 4 are faster than one of 6 and one of 2.
    const size_t rest = x.rows >= 8 && x.rows % kMost == 2 ? 8 : x.rows % kMost;
    at.row = tiles_of<F, S, kMost, P>(w, at, x.rows - rest, x, y);
  }
  at.row = tiles_of<F, S, 4, P>(w, at, x.rows, x, y);
  at.row = tiles_of<F, S, 2, P>(w, at, x.rows, x, y);
  if constexpr (P == 1) tiles_of<F, S, 1, P>(w, at, x.rows, x, y);
}

template <Form F, size_t S>
void strip_rows(const Strips& w, const TilePlace& at, const QuantizedInputs& x, MatrixView<float> y) {
  x.rows_per_token == 2 ? strip_rows<F, S, 2>(w, at, x, y) : strip_rows<F, S, 1>(w, at, x, y);
}

template <Form F, size_t... t>
NIBBLE_INLINE void unpack_block(const typename Simd::Codes& table, const uint8_t* __restrict block,
                                uint8_t* __restrict bytes, std::index_sequence<t...>) {
  (Simd::store_codes(bytes + t * kLineBytes, step_codes<F, t>(table, block)), ...);
}

// Blocks [begin, end): [num_blocks][lines of the form] -> [end - begin][8 lines] of bytes, in the order of
// the activations.
template <Form F>
void unpack_strip(const Strips& w, const uint8_t* codes, size_t begin, size_t end, uint8_t* bytes) {
  typename Simd::Codes table = {};
  if constexpr (F == Form::kNibbleTable) table = Simd::load_table(w.table);
  codes += begin * lines_per_block(F) * kLineBytes;
  for (size_t block = begin; block < end; ++block) {
    for (size_t i = 0; i < lines_per_block(F); ++i) Simd::prefetch(codes + i * kLineBytes + kPrefetchFar);
    for (size_t part = 0; part < kLineBytes; part += 4 * Simd::kLanes) {
      unpack_block<F>(table, codes + part, bytes + part, std::make_index_sequence<kSteps>());
    }
    codes += lines_per_block(F) * kLineBytes;
    bytes += kSteps * kLineBytes;
  }
}

// Strips [begin, end) in tiles of S, from where their codes lie, or unpacked to bytes.
template <Form F, Form Unpacked, size_t S>
size_t strips_in_tiles(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end, size_t origin,
                       bool unpack, MatrixView<float> y, uint8_t* scratch) {
  for (; begin + S <= end; begin += S) {
    const uint8_t* const codes = w.codes + begin * w.strip_bytes();
    if (unpack) {
      for (size_t s = 0; s < S; ++s) {
        unpack_strip<F>(w, codes + s * w.strip_bytes(), 0, w.num_blocks, scratch + s * w.unpacked_bytes());
      }
      strip_rows<Unpacked, S>(w, {begin, scratch, w.unpacked_bytes(), 0, 0, origin}, x, y);
    } else {
      strip_rows<F, S>(w, {begin, codes, w.strip_bytes(), 0, 0, origin}, x, y);
    }
  }
  return begin;
}

template <Form F, Form Unpacked>
void strips_of_form(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end, MatrixView<float> y,
                    uint8_t* scratch) {
  const bool unpack = F != Unpacked && x.rows > Simd::kPackedRows;
  const size_t origin = begin;
  if constexpr (Simd::kStripsOfFewRows > Simd::kStrips) {
    constexpr size_t kStrips = Simd::kStripsOfFewRows;
    for (; x.rows <= kFewRows && begin + kStrips <= end; begin += kStrips) {
      strip_rows<F, kStrips>(w, {begin, w.codes + begin * w.strip_bytes(), w.strip_bytes(), 0, 0, origin}, x,
                             y);
    }
  }
  if constexpr (Simd::kStrips > 1) {
    begin = strips_in_tiles<F, Unpacked, Simd::kStrips>(w, x, begin, end, origin, unpack, y, scratch);
  }
  strips_in_tiles<F, Unpacked, 1>(w, x, begin, end, origin, unpack, y, scratch);
}

[[maybe_unused]] void strips(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                             MatrixView<float> y, uint8_t* scratch) {
  switch (w.form) {
    case CodeForm::kBytes:
      return strips_of_form<Form::kBytes, Form::kBytes>(w, x, begin, end, y, scratch);
    case CodeForm::kTwoBits:
      return strips_of_form<Form::kTwoBits, Form::kSmallBytes>(w, x, begin, end, y, scratch);
    case CodeForm::kThreeBits:
      return strips_of_form<Form::kThreeBits, Form::kSmallBytes>(w, x, begin, end, y, scratch);
    case CodeForm::kNibbles:
      return strips_of_form<Form::kNibbles, Form::kSmallBytes>(w, x, begin, end, y, scratch);
    case CodeForm::kNibbleTable:
      return strips_of_form<Form::kNibbleTable, Form::kBytes>(w, x, begin, end, y, scratch);
  }
}

[[maybe_unused]] void outliers_product(const Strips& w, size_t strip, const float* x,
                                       std::span<const uint32_t> outliers, float* out) {
  const uint8_t* const codes = w.codes + strip * w.strip_bytes();
  const float* const scales = static_cast<const float*>(w.scales) + strip * kStripOutputs;
  const typename Simd::Floats inverse127 = Simd::broadcast(1.f / 127.f);
  for (size_t lane = 0; lane < kStripOutputs; lane += Simd::kLanes) {
    const typename Simd::Floats scale = Simd::load(scales + lane);
    typename Simd::Floats sums = Simd::zero();
    for (const uint32_t k : outliers) {
      const typename Simd::Codes line = Simd::load_codes(codes + k / 4 * kLineBytes + 4 * lane);
      const typename Simd::Floats weight =
          Simd::mul(Simd::mul(Simd::centred(line, k % 4), scale), inverse127);
      sums = Simd::fma(Simd::broadcast(x[k]), weight, sums);
    }
    Simd::store(out + lane, sums);
  }
}

}  // namespace
}  // namespace nibble::kernels
