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
// and has Simd::kLanes = 16 and Simd::load_integers(int32*), as Floats.

namespace nibble::kernels {
namespace {

// How a span ends: inside its group, or with it, by one of the two formulas.
enum class SpanEnd { kInside, kZeroPoint, kOffset };

// A step: S strips for up to Dots::kRows rows.
template <class Dots, size_t S>
class WideStep {
 public:
  WideStep(const Strips& w, const TilePlace& at, size_t rows, const QuantizedInputs& x)
      : w_(w), at_(at), rows_(rows), x_(x) {
    static_assert(Simd::kLanes == kStripOutputs && Dots::kRows == 2 * Dots::kTileRows);
  }

  void run(Dots& dots) {
    for (size_t i = 0; i < kSums; ++i) Simd::store(totals_ + i * kStripOutputs, Simd::zero());
    dots.begin(S, rows_);
    rows_ > Dots::kTileRows ? run_tiles<2>(dots) : run_tiles<1>(dots);
  }

  void store(MatrixView<float> y) const {
    for (size_t s = 0; s < S; ++s) {
      const size_t first = (at_.strip + s) * kStripOutputs;
      const float* total = totals_ + s * Dots::kRows * kStripOutputs;
      for (size_t m = 0; m < rows_; m += x_.rows_per_token) {
        typename Simd::Floats output = Simd::load(total);
        if (x_.rows_per_token == 2) output = Simd::add(output, Simd::load(total + kStripOutputs));
        store_outputs(output, w_.out_features - first,
                      y.row((at_.row + m) / x_.rows_per_token) + first - at_.origin * kStripOutputs);
        total += x_.rows_per_token * kStripOutputs;
      }
    }
  }

  // Where Dots stores the sums of strip s and tile r, and what it calls then.
  int32_t* products(size_t s, size_t r) {
    return products_ + (s * Dots::kRows + r * Dots::kTileRows) * kStripOutputs;
  }
  void add_products(size_t s, size_t r) {
    const size_t begin = r * Dots::kTileRows;
    const size_t end = begin + Dots::kTileRows < rows_ ? begin + Dots::kTileRows : rows_;
    if (!ends_group_) {
      begins_group_ ? add_rows<SpanEnd::kInside, true>(s, begin, end)
                    : add_rows<SpanEnd::kInside, false>(s, begin, end);
    } else if (w_.offsets != nullptr) {
      begins_group_ ? add_rows<SpanEnd::kOffset, true>(s, begin, end)
                    : add_rows<SpanEnd::kOffset, false>(s, begin, end);
    } else {
      begins_group_ ? add_rows<SpanEnd::kZeroPoint, true>(s, begin, end)
                    : add_rows<SpanEnd::kZeroPoint, false>(s, begin, end);
    }
  }

 private:
  static constexpr size_t kSums = S * Dots::kRows;
  // Rows whose sums are in registers at a time.
  static constexpr size_t kRowsAtOnce = 8;

  // The floats of a span are added up while the tiles multiply the next one.
  template <size_t R>
  void run_tiles(Dots& dots) {
    const bool prefetch = at_.row == 0 && w_.form == CodeForm::kBytes;  // others were just unpacked
    const uint8_t* codes = at_.codes;
    const int8_t* inputs = x_.codes + at_.row * x_.stride;
    size_t block = 0;
    size_t group = 0;
    size_t first_span = 0;  // of the group
    for (size_t span = 0; span < w_.span_ends.size(); ++span) {
      const size_t blocks = w_.span_ends[span] - block;
      const size_t bytes = blocks * kBlockInputs * kStripOutputs;
      for (size_t b = 0; prefetch && b < S * bytes; b += kLineBytes) {
        Simd::prefetch(codes + b / bytes * at_.codes_stride + b % bytes + kPrefetchFar);
      }
      dots.template span<S, R>(codes, at_.codes_stride, blocks, inputs, x_.stride, *this, span > 0);
      codes += bytes;
      inputs += blocks * kBlockInputs;
      block = w_.span_ends[span];
      span_ = span;
      group_ = group;
      begins_group_ = span == first_span;
      ends_group_ = span + 1 == w_.group_ends[group];
      if (ends_group_) {
        first_span = span + 1;
        ++group;
      }
    }
    dots.template finish<S, R>(*this);
  }

  template <SpanEnd E, bool kBegins>
  void add_rows(size_t s, size_t m, size_t end) {
    GroupScale group = {Simd::zero(), Simd::zero()};
    if constexpr (E != SpanEnd::kInside) {
      const size_t i = ((at_.strip + s) * w_.group_ends.size() + group_) * kStripOutputs;
      group = group_scale(w_, i, E == SpanEnd::kOffset);
    }
    for (; m + kRowsAtOnce <= end; m += kRowsAtOnce) {
      add_rows_at<E, kBegins>(group, s, m, std::make_index_sequence<kRowsAtOnce>());
    }
    for (; m < end; ++m) add_rows_at<E, kBegins>(group, s, m, std::make_index_sequence<1>());
  }

  template <SpanEnd E, bool kBegins, size_t... r>
  NIBBLE_INLINE void add_rows_at(const GroupScale& group, size_t s, size_t m, std::index_sequence<r...>) {
    const size_t place = (s * Dots::kRows + m) * kStripOutputs;
    const int32_t* const products = products_ + place;
    float* const group_sums = sums_ + place;
    const float* const scales = x_.scales + (at_.row + m) * x_.scale_stride + span_;
    typename Simd::Floats sums[sizeof...(r)];
    if constexpr (kBegins) {
      ((sums[r] = Simd::zero()), ...);
    } else {
      ((sums[r] = Simd::load(group_sums + r * kStripOutputs)), ...);
    }
    ((sums[r] = Simd::fma(Simd::broadcast(scales[r * x_.scale_stride]),
                          Simd::load_integers(products + r * kStripOutputs), sums[r])),
     ...);
    if constexpr (E == SpanEnd::kInside) {
      (Simd::store(group_sums + r * kStripOutputs, sums[r]), ...);
    } else {
      const size_t num_groups = w_.group_ends.size();
      const float* const input_sums = x_.sums + (at_.row + m) * num_groups + group_;
      float* const totals = totals_ + place;
      (Simd::store(totals + r * kStripOutputs, with_group(group, E == SpanEnd::kOffset, sums[r],
                                                          Simd::broadcast(input_sums[r * num_groups]),
                                                          Simd::load(totals + r * kStripOutputs))),
       ...);
    }
  }

  const Strips& w_;
  const TilePlace& at_;
  const size_t rows_;
  const QuantizedInputs& x_;
  size_t span_ = 0;  // whose products are added
  size_t group_ = 0;
  bool begins_group_ = false;
  bool ends_group_ = false;
  // [S][Dots::kRows][16]
  alignas(64) int32_t products_[kSums * kStripOutputs];
  alignas(64) float sums_[kSums * kStripOutputs];  // of the group so far
  alignas(64) float totals_[kSums * kStripOutputs];
};

// A strip that is not in bytes.
inline void unpack_any(const Strips& w, const uint8_t* codes, uint8_t* bytes) {
  switch (w.form) {
    case CodeForm::kTwoBits:
      return unpack_strip<Form::kTwoBits>(w, codes, bytes);
    case CodeForm::kThreeBits:
      return unpack_strip<Form::kThreeBits>(w, codes, bytes);
    case CodeForm::kNibbles:
      return unpack_strip<Form::kNibbles>(w, codes, bytes);
    case CodeForm::kNibbleTable:
      return unpack_strip<Form::kNibbleTable>(w, codes, bytes);
    case CodeForm::kBytes:
      return;
  }
}

template <class Dots, size_t S>
size_t wide_strips(Dots& dots, const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                   size_t origin, MatrixView<float> y, uint8_t* scratch) {
  for (; begin + S <= end; begin += S) {
    TilePlace at = {begin, w.codes + begin * w.strip_bytes(), w.strip_bytes(), 0, 0, origin};
    if (w.form != CodeForm::kBytes) {
      for (size_t s = 0; s < S; ++s) {
        unpack_any(w, at.codes + s * w.strip_bytes(), scratch + s * w.unpacked_bytes());
      }
      at.codes = scratch;
      at.codes_stride = w.unpacked_bytes();
    }
    for (; at.row < x.rows; at.row += Dots::kRows) {
      WideStep<Dots, S> step(w, at, x.rows - at.row < Dots::kRows ? x.rows - at.row : Dots::kRows, x);
      step.run(dots);
      step.store(y);
    }
  }
  return begin;
}

template <class Dots>
void wide_product(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end, MatrixView<float> y,
                  uint8_t* scratch) {
  Dots dots(w);
  const size_t origin = begin;
  if constexpr (Dots::kStrips > 1) {
    begin = wide_strips<Dots, Dots::kStrips>(dots, w, x, begin, end, origin, y, scratch);
  }
  wide_strips<Dots, 1>(dots, w, x, begin, end, origin, y, scratch);
  dots.end();
}

}  // namespace
}  // namespace nibble::kernels
