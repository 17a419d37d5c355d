// The Dots of strips_wide-inl.h on AMX's tiles, real or emulated (amx_tiles.h). A strip of bytes is what the
// product of tiles asks of its second operand: four inputs of each output are neighbours.

namespace nibble::kernels {
namespace {

template <class Tiles>
class AmxDots {
 public:
  static constexpr size_t kRows = 2 * kTileRegisterRows;
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

  template <size_t S>
  void span(const uint8_t* codes, size_t codes_stride, size_t blocks, const int8_t* inputs, size_t stride,
            size_t rows, int32_t* products) const {
    if (rows > kTileRegisterRows) {
      rows_of_tiles<S, 2>(codes, codes_stride, blocks, inputs, stride, products);
    } else {
      rows_of_tiles<S, 1>(codes, codes_stride, blocks, inputs, stride, products);
    }
  }

  void end() { Tiles::release(); }

 private:
  template <size_t S, size_t R>
  void rows_of_tiles(const uint8_t* codes, size_t codes_stride, size_t blocks, const int8_t* inputs,
                     size_t stride, int32_t* products) const {
    Tiles::template zero<0>();
    if constexpr (R > 1) Tiles::template zero<1>();
    if constexpr (S > 1) Tiles::template zero<2>();
    if constexpr (S > 1 && R > 1) Tiles::template zero<3>();
    for (size_t k = 0; k < blocks * kBlockInputs; k += depth_) {
      const uint8_t* const lines = codes + k * kStripOutputs;
      Tiles::template load<4>(inputs + k, stride);
      Tiles::template load<6>(lines, kLineBytes);
      Tiles::template dot<0, 4, 6>();
      if constexpr (R > 1) {
        Tiles::template load<5>(inputs + kTileRegisterRows * stride + k, stride);
        Tiles::template dot<1, 5, 6>();
      }
      if constexpr (S > 1) {
        Tiles::template load<7>(lines + codes_stride, kLineBytes);
        Tiles::template dot<2, 4, 7>();
      }
      if constexpr (S > 1 && R > 1) Tiles::template dot<3, 5, 7>();
    }
    constexpr size_t kTile = kTileRegisterRows * kStripOutputs;
    Tiles::template store<0>(products, kLineBytes);
    if constexpr (R > 1) Tiles::template store<1>(products + kTile, kLineBytes);
    if constexpr (S > 1) Tiles::template store<2>(products + 2 * kTile, kLineBytes);
    if constexpr (S > 1 && R > 1) Tiles::template store<3>(products + 3 * kTile, kLineBytes);
  }

  size_t depth_ = 2 * kBlockInputs;
  size_t strips_ = 0;
  size_t rows_ = 0;
};

}  // namespace
}  // namespace nibble::kernels
