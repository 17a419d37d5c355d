// Strips for many rows, by instructions that multiply small matrices of bytes (AMX): they leave the products
// of a span in memory, and from there on this does what strips-inl.h does, in the same order. After
// strips-inl.h, in the region of the including file, which defines
//   struct Dots
//     kTileRows, kRows, kStrips   rows of a tile; rows and strips of a step: two tiles of rows
//     begin(strips, rows)         before each step
//     span<S, R>(codes, codes_stride, blocks, inputs, stride, step, later)
//                                 multiplies S strips, whose codes are bytes and lie codes_stride apart, by R
//                                 tiles of rows. Where there was a span before (later), stores its sums of
//                                 each tile in step.products() and calls step.add_products()
//     finish<S, R>(step)          the same for the last span
//     end()                       after the last step of a call
// and has Simd::kLanes = 16 and Simd::load_integers(int32*).

namespace nibble::kernels {
namespace {

// How a span ends: inside its group, or with it, by one of the two formulas.
enum class SpanEnd { kInside, kZeroPoint, kOffset };

// Blocks of a strip that is not in bytes.
inline void unpack_any(const Strips& w, const uint8_t* codes, size_t begin, size_t end, uint8_t* bytes) {
  switch (w.form) {
    case CodeForm::kTwoBits:
      return unpack_strip<Form::kTwoBits>(w, codes, begin, end, bytes);
    case CodeForm::kThreeBits:
      return unpack_strip<Form::kThreeBits>(w, codes, begin, end, bytes);
    case CodeForm::kNibbles:
      return unpack_strip<Form::kNibbles>(w, codes, begin, end, bytes);
    case CodeForm::kNibbleTable:
      return unpack_strip<Form::kNibbleTable>(w, codes, begin, end, bytes);
    case CodeForm::kBytes:
      return;
  }
}

// Spans that are multiplied for one pair of strips after the other before the next ones: whole groups, so
// that a group's sums need not be kept, and with them what the L1 cache holds of the rows.
constexpr size_t kChunkBlocks = 8;

// Some strips, S at a time, for up to Dots::kRows rows, P of a token. Rows are read once from where they lie,
// in chunks, which all strips find in the L1 cache.
template <class Dots, size_t S, size_t P>
class WideBlock {
 public:
  // at: the strips from at.strip on, strips of them (a multiple of S), whose codes are bytes, or to be
  // unpacked chunk by chunk to `scratch` if that is not null.
  WideBlock(const Strips& w, const TilePlace& at, size_t strips, size_t rows, const QuantizedInputs& x,
            uint8_t* scratch)
      : w_(w), at_(at), strips_(strips), rows_(rows), x_(x), scratch_(scratch) {
    static_assert(Simd::kLanes == kStripOutputs && Dots::kRows == 2 * Dots::kTileRows &&
                  Dots::kTileRows % P == 0 && kWideStrips % S == 0);
  }

  void run(Dots& dots) {
    for (size_t i = 0; i < strips_ * kTokens; ++i) Simd::store(totals_ + i * kStripOutputs, Simd::zero());
    dots.begin(S, rows_);
    rows_ > Dots::kTileRows ? run_tiles<2>(dots) : run_tiles<1>(dots);
  }

  void store(MatrixView<float> y) const {
    for (size_t s = 0; s < strips_; ++s) {
      const size_t first = (at_.strip + s) * kStripOutputs;
      for (size_t t = 0; t < rows_ / P; ++t) {
        store_outputs(Simd::load(totals_ + (s * kTokens + t) * kStripOutputs), w_.out_features - first,
                      y.row(at_.row / P + t) + first - at_.origin * kStripOutputs);
      }
    }
  }

  // Where Dots stores the sums of strip s of those it multiplies and tile r, and what it calls then.
  int32_t* products(size_t s, size_t r) {
    return products_ + (s * Dots::kRows + r * Dots::kTileRows) * kStripOutputs;
  }
  void add_products(size_t s, size_t r) {
    constexpr size_t kTileTokens = Dots::kTileRows / P;
    const size_t begin = r * kTileTokens;
    const size_t end = begin + kTileTokens < rows_ / P ? begin + kTileTokens : rows_ / P;
    if (!stored_.ends_group) {
      stored_.begins_group ? add_tokens<SpanEnd::kInside, true>(s, begin, end)
                           : add_tokens<SpanEnd::kInside, false>(s, begin, end);
    } else if (w_.offsets != nullptr) {
      stored_.begins_group ? add_tokens<SpanEnd::kOffset, true>(s, begin, end)
                           : add_tokens<SpanEnd::kOffset, false>(s, begin, end);
    } else {
      stored_.begins_group ? add_tokens<SpanEnd::kZeroPoint, true>(s, begin, end)
                           : add_tokens<SpanEnd::kZeroPoint, false>(s, begin, end);
    }
  }

 private:
  static constexpr size_t kTokens = Dots::kRows / P;
  // Whose sums are in registers at a time.
  static constexpr size_t kTokensAtOnce = 8;

  // A span of S strips.
  struct Span {
    size_t strip;  // the first, counted from at_.strip
    size_t span;
    size_t group;
    bool begins_group;
    bool ends_group;
  };

  struct Chunk {
    size_t block, end_block;
    size_t group, end_group;
    size_t span;
  };

  template <size_t R>
  void run_tiles(Dots& dots) {
    Chunk chunk = {};
    while (chunk.block < w_.num_blocks) {
      chunk.end_group = chunk.group;
      do {
        chunk.end_block = w_.span_ends[w_.group_ends[chunk.end_group++] - 1];
      } while (chunk.end_block < chunk.block + kChunkBlocks && chunk.end_block < w_.num_blocks);
      for (size_t strip = 0; strip < strips_; strip += S) run_chunk<R>(dots, chunk, strip);
      chunk.block = chunk.end_block;
      chunk.group = chunk.end_group;
      chunk.span = w_.group_ends[chunk.end_group - 1];
    }
    dots.template finish<S, R>(*this);
  }

  // The floats of a span are added up while the tiles multiply the next one.
  template <size_t R>
  void run_chunk(Dots& dots, const Chunk& chunk, size_t strip) {
    const bool prefetch = at_.row == 0 && w_.form == CodeForm::kBytes;  // others were just unpacked
    const uint8_t* codes = at_.codes + strip * at_.codes_stride;
    size_t codes_stride = at_.codes_stride;
    if (scratch_ != nullptr) {
      codes_stride = (chunk.end_block - chunk.block) * kBlockInputs * kStripOutputs;
      for (size_t s = 0; s < S; ++s) {
        unpack_any(w_, codes + s * at_.codes_stride, chunk.block, chunk.end_block,
                   scratch_ + s * codes_stride);
      }
      codes = scratch_;
    } else {
      codes += chunk.block * kBlockInputs * kStripOutputs;
    }
    const int8_t* inputs = x_.codes + at_.row * x_.stride + chunk.block * kBlockInputs;
    size_t block = chunk.block;
    size_t span = chunk.span;
    for (size_t group = chunk.group; group < chunk.end_group; ++group) {
      const size_t first_span = span;
      for (; span < w_.group_ends[group]; ++span) {
        const size_t blocks = w_.span_ends[span] - block;
        const size_t bytes = blocks * kBlockInputs * kStripOutputs;
        for (size_t b = 0; prefetch && b < S * bytes; b += kLineBytes) {
          Simd::prefetch(codes + b / bytes * codes_stride + b % bytes + kPrefetchFar);
        }
        dots.template span<S, R>(codes, codes_stride, blocks, inputs, x_.stride, *this, block + strip > 0);
        codes += bytes;
        inputs += blocks * kBlockInputs;
        block = w_.span_ends[span];
        stored_ = {strip, span, group, span == first_span, span + 1 == w_.group_ends[group]};
      }
    }
  }

  template <SpanEnd E, bool kBegins>
  void add_tokens(size_t s, size_t t, size_t end) {
    GroupScale group = {Simd::zero(), Simd::zero()};
    if constexpr (E != SpanEnd::kInside) {
      const size_t strip = at_.strip + stored_.strip + s;
      group = group_scale(w_, (strip * w_.group_ends.size() + stored_.group) * kStripOutputs,
                          E == SpanEnd::kOffset);
    }
    for (; t + kTokensAtOnce <= end; t += kTokensAtOnce) {
      add_tokens_at<E, kBegins>(group, s, t, std::make_index_sequence<kTokensAtOnce>());
    }
    for (; t + 4 <= end; t += 4) add_tokens_at<E, kBegins>(group, s, t, std::make_index_sequence<4>());
    for (; t < end; ++t) add_tokens_at<E, kBegins>(group, s, t, std::make_index_sequence<1>());
  }

  // Of the token whose rows begin at products.
  static NIBBLE_INLINE typename Simd::Floats product(const int32_t* products) {
    const typename Simd::Integers first = Simd::load_integers(products);
    if constexpr (P == 1) return Simd::floats(first);
    return Simd::floats(Simd::high_and_low(first, Simd::load_integers(products + (P - 1) * kStripOutputs)));
  }

  template <SpanEnd E, bool kBegins, size_t... i>
  NIBBLE_INLINE void add_tokens_at(const GroupScale& group, size_t s, size_t t, std::index_sequence<i...>) {
    const size_t place = (s * kTokens + t) * kStripOutputs;
    const int32_t* const products = products_ + place * P;
    float* const group_sums = sums_ + place;
    const float* const scales = x_.scales + (at_.row / P + t) * x_.scale_stride + stored_.span;
    typename Simd::Floats sums[sizeof...(i)];
    if constexpr (kBegins) {
      ((sums[i] = Simd::zero()), ...);
    } else {
      ((sums[i] = Simd::load(group_sums + i * kStripOutputs)), ...);
    }
    ((sums[i] = Simd::fma(Simd::broadcast(scales[i * x_.scale_stride]),
                          product(products + i * P * kStripOutputs), sums[i])),
     ...);
    if constexpr (E == SpanEnd::kInside) {
      (Simd::store(group_sums + i * kStripOutputs, sums[i]), ...);
    } else {
      const size_t num_groups = w_.group_ends.size();
      const float* const input_sums = x_.sums + (at_.row / P + t) * num_groups + stored_.group;
      float* const totals = totals_ + stored_.strip * kTokens * kStripOutputs + place;
      (Simd::store(totals + i * kStripOutputs, with_group(group, E == SpanEnd::kOffset, sums[i],
                                                          Simd::broadcast(input_sums[i * num_groups]),
                                                          Simd::load(totals + i * kStripOutputs))),
       ...);
    }
  }

  const Strips& w_;
  const TilePlace& at_;
  const size_t strips_;
  const size_t rows_;
  const QuantizedInputs& x_;
  uint8_t* const scratch_;
  Span stored_ = {};                                                 // whose products are added
  alignas(64) int32_t products_[S * Dots::kRows * kStripOutputs];    // [S][Dots::kRows][16]
  alignas(64) float sums_[S * kTokens * kStripOutputs];              // [S][kTokens][16]: of the group so far
  alignas(64) float totals_[kWideStrips * kTokens * kStripOutputs];  // [strips][kTokens][16]
};

template <class Dots, size_t S, size_t P>
size_t wide_strips(Dots& dots, const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                   size_t origin, MatrixView<float> y, uint8_t* scratch) {
  const bool packed = w.form != CodeForm::kBytes;
  const bool once = x.rows <= Dots::kRows;  // then unpacked codes are not needed again
  const size_t most = S == 1 ? 1 : wide_strips_at_once(w);
  while (begin + S <= end) {
    const size_t strips = (end - begin < most ? end - begin : most) / S * S;
    TilePlace at = {begin, w.codes + begin * w.strip_bytes(), w.strip_bytes(), 0, 0, origin};
    if (packed && !once) {
      for (size_t s = 0; s < strips; ++s) {
        unpack_any(w, at.codes + s * w.strip_bytes(), 0, w.num_blocks, scratch + s * w.unpacked_bytes());
      }
      at.codes = scratch;
      at.codes_stride = w.unpacked_bytes();
    }
    for (; at.row < x.rows; at.row += Dots::kRows) {
      WideBlock<Dots, S, P> block(w, at, strips,
                                  x.rows - at.row < Dots::kRows ? x.rows - at.row : Dots::kRows, x,
                                  packed && once ? scratch : nullptr);
      block.run(dots);
      block.store(y);
    }
    begin += strips;
  }
  return begin;
}

template <class Dots, size_t P>
void wide_product_of(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end, MatrixView<float> y,
                     uint8_t* scratch) {
  Dots dots(w);
  const size_t origin = begin;
  if constexpr (Dots::kStrips > 1) {
    begin = wide_strips<Dots, Dots::kStrips, P>(dots, w, x, begin, end, origin, y, scratch);
  }
  wide_strips<Dots, 1, P>(dots, w, x, begin, end, origin, y, scratch);
  dots.end();
}

template <class Dots>
void wide_product(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end, MatrixView<float> y,
                  uint8_t* scratch) {
  (x.rows_per_token == 2 ? wide_product_of<Dots, 2> : wide_product_of<Dots, 1>)(w, x, begin, end, y, scratch);
}

}  // namespace
}  // namespace nibble::kernels
