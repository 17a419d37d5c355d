// The Dots of strips_wide-inl.h on AMX's tiles, real or emulated (amx_tiles.h). A strip of bytes is what the
// product of tiles asks of its second operand: four inputs of each output are neighbours.

namespace nibble::kernels {
namespace {

template <class Tiles>
class AmxDots {
 public:
  static constexpr size_t kTileRows = kTileRegisterRows;
  static constexpr size_t kRows = 2 * kTileRows;
  static constexpr size_t kStrips = 2;

  // A product takes 64 inputs, or 32 where a span has an odd number of blocks.
  explicit AmxDots(const Strips& w) {
    uint32_t previous = 0;
    for (const uint32_t end : w.span_ends) {
      if ((end - previous) % 2 != 0) depth_ = kBlockInputs;
      previous = end;
    }
  }

  // Tiles 0 1 | 2 3: sums of the first 16 rows and of the others, for each strip; 4 5: their inputs; 6 7:
  // codes.
  void begin(size_t strips, size_t rows) {
    if (strips == strips_ && rows == rows_) return;
    strips_ = strips;
    rows_ = rows;
    TileShapes shapes;
    for (size_t r = 0; r < 2; ++r) {
      const size_t first = r * kTileRegisterRows;
      if (rows <= first) break;
      const size_t here = rows - first < kTileRegisterRows ? rows - first : kTileRegisterRows;
      for (size_t s = 0; s < strips; ++s) shapes.set(2 * s + r, here, kLineBytes);
      shapes.set(4 + r, here, depth_);
    }
    for (size_t s = 0; s < strips; ++s) shapes.set(6 + s, depth_ / 4, kLineBytes);
    Tiles::configure(shapes);
  }

  template <size_t S, size_t R, class Step>
  void span(const uint8_t* codes, size_t codes_stride, size_t blocks, const int8_t* inputs, size_t stride,
            Step& step, bool later) const {
    multiply<S, R, true>(codes, codes_stride, inputs, stride, step, later);
    for (size_t k = depth_; k < blocks * kBlockInputs; k += depth_) {
      multiply<S, R, false>(codes + k * kStripOutputs, codes_stride, inputs + k, stride, step, false);
    }
  }

  template <size_t S, size_t R, class Step>
  void finish(Step& step) const {
    store<0, 0, 0>(step);
    if constexpr (R > 1) store<1, 0, 1>(step);
    if constexpr (S > 1) store<2, 1, 0>(step);
    if constexpr (S > 1 && R > 1) store<3, 1, 1>(step);
  }

  void end() { Tiles::release(); }

 private:
  template <int sum, size_t s, size_t r, class Step>
  NIBBLE_INLINE void store(Step& step) const {
    Tiles::template store<sum>(step.products(s, r), kLineBytes);
    step.add_products(s, r);
  }

  template <int sum, int a, int b, size_t s, size_t r, bool first, class Step>
  NIBBLE_INLINE void multiply_tile(Step& step, bool later) const {
    if constexpr (first) {
      if (later) Tiles::template store<sum>(step.products(s, r), kLineBytes);
      Tiles::template zero<sum>();
    }
    Tiles::template dot<sum, a, b>();
    if (first && later) step.add_products(s, r);
  }

  template <size_t S, size_t R, bool first, class Step>
  NIBBLE_INLINE void multiply(const uint8_t* codes, size_t codes_stride, const int8_t* inputs, size_t stride,
                              Step& step, bool later) const {
    Tiles::template load<4>(inputs, stride);
    Tiles::template load<6>(codes, kLineBytes);
    multiply_tile<0, 4, 6, 0, 0, first>(step, later);
    if constexpr (R > 1) {
      Tiles::template load<5>(inputs + kTileRows * stride, stride);
      multiply_tile<1, 5, 6, 0, 1, first>(step, later);
    }
    if constexpr (S > 1) {
      Tiles::template load<7>(codes + codes_stride, kLineBytes);
      multiply_tile<2, 4, 7, 1, 0, first>(step, later);
    }
    if constexpr (S > 1 && R > 1) multiply_tile<3, 5, 7, 1, 1, first>(step, later);
  }

  size_t depth_ = 2 * kBlockInputs;
  size_t strips_ = 0;
  size_t rows_ = 0;
};

}  // namespace
}  // namespace nibble::kernels
