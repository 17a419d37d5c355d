// The inner loop of quantize_gptq_compat, compiled once per instruction set. A lane is a row of the
// weight, so that every target computes the same bits: no sum crosses lanes, nothing is fused.

namespace nibble::kernels::NIBBLE_NAMESPACE {

// Rows [first, first + kLanes) of the tile, columns one after the other: round, then spread the error
// over the columns behind.
inline void solve_lanes(const CompatTile& tile, size_t first) {
  const F32 max_code = set1(tile.max_code);
  const size_t rows = tile.rows - first;  // lanes behind the last row compute nothing that is kept
  for (size_t i = 0; i < tile.columns; ++i) {
    float* column = tile.weights + i * kTileRows + first;
    const F32 w = load(column);
    const F32 scale = load_n(tile.scales[i] + first, rows);
    const F32 zero = load_n(tile.zeros[i] + first, rows);
    const F32 code = min(max(add(round(div(w, scale)), zero), set1(0.f)), max_code);
    const F32 error = div(sub(w, mul(scale, sub(code, zero))), set1(tile.factor[i * tile.factor_stride + i]));
    store(tile.codes + i * kTileRows + first, code);
    store(column, error);
    const float* row = tile.factor + i * tile.factor_stride;
    for (size_t j = i + 1; j < tile.columns; ++j) {
      float* behind = tile.weights + j * kTileRows + first;
      store(behind, sub(load(behind), mul(error, set1(row[j]))));
    }
  }
}

inline void solve_tile(const CompatTile& tile) {
  for (size_t first = 0; first < tile.rows; first += kLanes) solve_lanes(tile, first);
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
