#ifndef NIBBLE_KERNELS_AMX_TILES_H_
#define NIBBLE_KERNELS_AMX_TILES_H_

// AMX: eight registers (tiles) of up to 16 rows of 64 bytes, and a product of two of them added to a third.
// Once as instructions and once as plain C++ with the same results, so that code on top of them is tested on
// processors without.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "nibble/base/check.h"
#include "nibble/base/simd_region.h"

namespace nibble::kernels {

inline constexpr size_t kTileRegisters = 8;
inline constexpr size_t kTileRegisterRows = 16;
inline constexpr size_t kTileRegisterBytes = 64;  // of a row

// What the processor reads to set the shapes of the tiles (palette 1).
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  std::array<uint8_t, 14> reserved = {};
  std::array<uint16_t, 16> row_bytes = {};
  std::array<uint8_t, 16> rows = {};

  void set(size_t tile, size_t tile_rows, size_t bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};
static_assert(sizeof(TileShapes) == 64);

#if NIBBLE_X86
// Numbers of tiles are parts of the instructions. By inline assembly, since compilers differ in what they ask
// of a function before they offer the intrinsics.
struct AmxTiles {
  static NIBBLE_INLINE void configure(const TileShapes& shapes) {
    asm volatile("ldtilecfg %0" ::"m"(shapes));
  }
  static NIBBLE_INLINE void release() { asm volatile("tilerelease"); }
  template <int tile>
  static NIBBLE_INLINE void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(tile));
  }
  // Rows that lie `stride` bytes apart.
  template <int tile>
  static NIBBLE_INLINE void load(const void* p, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(tile) : "memory");
  }
  template <int tile>
  static NIBBLE_INLINE void store(void* p, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(tile) : "memory");
  }
  // sums[m][n] += sum over j of a[m][j] * b[j / 4][4 n + j % 4], a signed and b unsigned bytes.
  template <int sums, int a, int b>
  static NIBBLE_INLINE void dot() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(a), "i"(b));
  }
};
#endif

// As the manual has the instructions (Intel's, volume 2: LDTILECFG, TILELOADD, TDPBSUD, TILESTORED). Shapes
// for which the processor would raise an exception are bugs.
struct EmulatedTiles {
  static void configure(const TileShapes& shapes) {
    NIBBLE_CHECK(shapes.palette == 1 && shapes.start_row == 0);
    for (size_t t = 0; t < kTileRegisters; ++t) {
      NIBBLE_CHECK(shapes.rows[t] <= kTileRegisterRows && shapes.row_bytes[t] <= kTileRegisterBytes);
      NIBBLE_CHECK((shapes.rows[t] == 0) == (shapes.row_bytes[t] == 0));
    }
    state() = {};
    state().shapes = shapes;
    state().configured = true;
  }
  static void release() { state() = {}; }
  template <int tile>
  static void zero() {
    shaped(tile);
    std::memset(state().bytes[tile], 0, sizeof(state().bytes[tile]));
  }
  template <int tile>
  static void load(const void* p, size_t stride) {
    shaped(tile);
    std::memset(state().bytes[tile], 0, sizeof(state().bytes[tile]));
    for (size_t r = 0; r < state().shapes.rows[tile]; ++r) {
      std::memcpy(state().bytes[tile][r], static_cast<const uint8_t*>(p) + r * stride,
                  state().shapes.row_bytes[tile]);
    }
  }
  template <int tile>
  static void store(void* p, size_t stride) {
    shaped(tile);
    for (size_t r = 0; r < state().shapes.rows[tile]; ++r) {
      std::memcpy(static_cast<uint8_t*>(p) + r * stride, state().bytes[tile][r],
                  state().shapes.row_bytes[tile]);
    }
  }
  template <int sums, int a, int b>
  static void dot() {
    for (const int tile : {sums, a, b}) shaped(tile);
    State& s = state();
    NIBBLE_CHECK(s.shapes.rows[sums] == s.shapes.rows[a]);
    NIBBLE_CHECK(s.shapes.row_bytes[sums] == s.shapes.row_bytes[b]);
    NIBBLE_CHECK(s.shapes.row_bytes[a] == 4 * s.shapes.rows[b]);
    for (size_t m = 0; m < s.shapes.rows[sums]; ++m) {
      for (size_t n = 0; n < s.shapes.row_bytes[sums]; n += 4) {
        uint32_t sum;  // wraps around
        std::memcpy(&sum, s.bytes[sums][m] + n, sizeof(sum));
        for (size_t j = 0; j < s.shapes.row_bytes[a]; ++j) {
          sum += static_cast<uint32_t>(int{static_cast<int8_t>(s.bytes[a][m][j])} *
                                       int{s.bytes[b][j / 4][n + j % 4]});
        }
        std::memcpy(s.bytes[sums][m] + n, &sum, sizeof(sum));
      }
    }
  }

 private:
  struct State {
    bool configured = false;
    TileShapes shapes;
    uint8_t bytes[kTileRegisters][kTileRegisterRows][kTileRegisterBytes] = {};
  };
  static State& state() {
    thread_local State tiles;
    return tiles;
  }
  static void shaped(int tile) {
    NIBBLE_CHECK(state().configured && state().shapes.rows[static_cast<size_t>(tile)] > 0);
  }
};

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_AMX_TILES_H_
