// Strips for many rows, by instructions that multiply small matrices of bytes (AMX, usmmla): they leave the
// products of a span in memory, and from there on this does what strips-inl.h does, in the same order.
// After strips-inl.h, in the region of the including file, which defines
//   struct Dots
//     kRows, kStrips      of a step; an even number of rows
//     begin(strips, rows) before each step
//     span<S>(codes, codes_stride, blocks, inputs, stride, rows, products): for S strips, whose codes are
//     bytes
//                         and lie codes_stride apart; products: int32 [S][kRows][16]
//     end()               after the last step of a call
// and has Simd::kLanes = 16 and Simd::load_integers(int32*), as Floats.

namespace nibble::kernels {
namespace {

// S strips for the `rows` rows behind at.row.
template <class Dots, size_t S>
void wide_step(Dots& dots, const Strips& w, const TilePlace& at, size_t rows, const QuantizedInputs& x,
               MatrixView<float> y) {
  static_assert(Simd::kLanes == kStripOutputs);
  alignas(64) int32_t products[S * Dots::kRows * kStripOutputs];
  alignas(64) float totals[S * Dots::kRows * kStripOutputs];
  typename Simd::Floats sums[S * Dots::kRows];
  for (size_t i = 0; i < S * Dots::kRows; ++i) Simd::store(totals + i * kStripOutputs, Simd::zero());
  const bool prefetch = at.row == 0 && w.form == CodeForm::kBytes;  // others were just unpacked
  const uint8_t* codes = at.codes;
  const int8_t* inputs = x.codes + at.row * x.stride;
  const float* const scales = x.scales + at.row * x.scale_stride;
  dots.begin(S, rows);
  size_t span = 0;
  size_t block = 0;
  for (size_t g = 0; g < w.group_ends.size(); ++g) {
    for (size_t i = 0; i < S * Dots::kRows; ++i) sums[i] = Simd::zero();
    for (; span < w.group_ends[g]; ++span) {
      const size_t blocks = w.span_ends[span] - block;
      const size_t bytes = blocks * kBlockInputs * kStripOutputs;
      for (size_t i = 0; prefetch && i < S * bytes; i += kLineBytes) {
        Simd::prefetch(codes + i / bytes * at.codes_stride + i % bytes + kPrefetchFar);
      }
      dots.template span<S>(codes, at.codes_stride, blocks, inputs, x.stride, rows, products);
      for (size_t s = 0; s < S; ++s) {
        for (size_t m = 0; m < rows; ++m) {
          const size_t i = s * Dots::kRows + m;
          sums[i] = Simd::fma(Simd::broadcast(scales[m * x.scale_stride + span]),
                              Simd::load_integers(products + i * kStripOutputs), sums[i]);
        }
      }
      codes += bytes;
      inputs += blocks * kBlockInputs;
      block = w.span_ends[span];
    }
    for (size_t s = 0; s < S; ++s) {
      TilePlace place = at;
      place.strip += s;
      size_t m = 0;
      for (; m + 4 <= rows; m += 4, place.row += 4) {
        const size_t i = s * Dots::kRows + m;
        add_group<1, 4>(w, place, g, x, sums + i, totals + i * kStripOutputs);
      }
      for (; m < rows; ++m, ++place.row) {
        const size_t i = s * Dots::kRows + m;
        add_group<1, 1>(w, place, g, x, sums + i, totals + i * kStripOutputs);
      }
    }
  }
  for (size_t s = 0; s < S; ++s) {
    const size_t first = (at.strip + s) * kStripOutputs;
    const float* total = totals + s * Dots::kRows * kStripOutputs;
    for (size_t m = 0; m < rows; m += x.rows_per_token) {
      typename Simd::Floats output = Simd::load(total);
      if (x.rows_per_token == 2) output = Simd::add(output, Simd::load(total + kStripOutputs));
      store_outputs(output, w.out_features - first,
                    y.row((at.row + m) / x.rows_per_token) + first - at.origin * kStripOutputs);
      total += x.rows_per_token * kStripOutputs;
    }
  }
}

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
  static_assert(Dots::kRows % 2 == 0);  // both rows of a token are in one step
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
      wide_step<Dots, S>(dots, w, at, x.rows - at.row < Dots::kRows ? x.rows - at.row : Dots::kRows, x, y);
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
