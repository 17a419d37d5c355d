#ifndef NIBBLE_QUANTIZATION_FORMATS_BIT_SPREAD_H_
#define NIBBLE_QUANTIZATION_FORMATS_BIT_SPREAD_H_

#include <cstdint>

namespace nibble {

// Eight neighbouring fields of kWidth bits, each moved into a byte of its own:
//   spread<4>(0x76543210) == 0x0706050403020100
// Halves are moved apart three times: 8 fields in 64 bits, 4 in each 32, 2 in each 16, 1 in each 8.
template <int kWidth>
constexpr uint64_t spread(uint64_t fields) {
  constexpr auto low_bits = [](int n) { return n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; };
  uint64_t x = fields & low_bits(8 * kWidth);
  x = (x | x << (32 - 4 * kWidth)) & (low_bits(4 * kWidth) * 0x0000000100000001u);
  x = (x | x << (16 - 2 * kWidth)) & (low_bits(2 * kWidth) * 0x0001000100010001u);
  x = (x | x << (8 - kWidth)) & (low_bits(kWidth) * 0x0101010101010101u);
  return x;
}

static_assert(spread<4>(0x76543210) == 0x0706050403020100);
static_assert(spread<3>(0xFAC688) == 0x0706050403020100);
static_assert(spread<8>(0x8877665544332211) == 0x8877665544332211);
static_assert(spread<1>(0b10000001) == 0x0100000000000001);

// The way back, from the lowest kWidth bits of each byte:
//   squeeze<4>(0x0706050403020100) == 0x76543210
template <int kWidth>
constexpr uint64_t squeeze(uint64_t bytes) {
  constexpr auto low_bits = [](int n) { return n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; };
  uint64_t x = bytes & (low_bits(kWidth) * 0x0101010101010101u);
  x = (x | x >> (8 - kWidth)) & (low_bits(2 * kWidth) * 0x0001000100010001u);
  x = (x | x >> (16 - 2 * kWidth)) & (low_bits(4 * kWidth) * 0x0000000100000001u);
  x = (x | x >> (32 - 4 * kWidth)) & low_bits(8 * kWidth);
  return x;
}

static_assert(squeeze<4>(0xF7F6F5F4F3F2F1F0) == 0x76543210);
static_assert(squeeze<3>(0x0706050403020100) == 0xFAC688);
static_assert(squeeze<8>(0x8877665544332211) == 0x8877665544332211);
static_assert(squeeze<1>(0x0100000000000001) == 0b10000001);

// rows[r] byte c <-> rows[c] byte r: quarters, then pairs, then single bytes change sides.
inline void transpose_8x8(uint64_t rows[8]) {
  const auto exchange = [&](int distance, uint64_t low) {
    for (int r = 0; r < 8; ++r) {
      if ((r & distance) != 0) continue;
      uint64_t& upper = rows[r];
      uint64_t& lower = rows[r + distance];
      const int shift = 8 * distance;
      const uint64_t moved = ((upper >> shift) ^ lower) & low;
      upper ^= moved << shift;
      lower ^= moved;
    }
  };
  exchange(4, 0x00000000FFFFFFFFu);
  exchange(2, 0x0000FFFF0000FFFFu);
  exchange(1, 0x00FF00FF00FF00FFu);
}

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FORMATS_BIT_SPREAD_H_
