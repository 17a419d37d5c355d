#include <algorithm>
#include <array>
#include <cmath>

#include "nibble/quantization/bitsandbytes.h"

namespace nibble {
namespace {

// The quantiles of a normal distribution (arXiv:2305.14314, appendix E), as bitsandbytes spells them.
constexpr std::array<float, 16> kNf4 = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// Magnitudes in twelfths, by the low three bits of the code; the fourth is the sign.
constexpr std::array<float, 8> kFp4Twelfths = {0.0f, 0.0625f, 8.0f, 12.0f, 4.0f, 6.0f, 2.0f, 3.0f};

std::array<float, 16> make_fp4() {
  std::array<float, 16> codebook{};
  for (size_t code = 0; code < 8; ++code) {
    codebook[code] = kFp4Twelfths[code] / 12.0f;
    // Code 8 is +0, as in the table that the original stores.
    codebook[code + 8] = code == 0 ? 0.0f : -codebook[code];
  }
  return codebook;
}

// Seven decades, each cut into twice as many pieces as the one below; the entries are the middles
// of the pieces. linspace is PyTorch's: from both ends to the middle, with fused multiply-add.
std::array<float, 256> make_dynamic_map() {
  std::array<float, 256> map{};
  size_t count = 0;
  for (int decade = 0; decade < 7; ++decade) {
    const int points = (1 << decade) + 1;
    const float step = (1.0f - 0.1f) / static_cast<float>(points - 1);
    const auto boundary = [&](int k) {
      return k < points / 2 ? std::fma(step, static_cast<float>(k), 0.1f)
                            : std::fma(-step, static_cast<float>(points - 1 - k), 1.0f);
    };
    const auto power = static_cast<float>(std::pow(10.0, decade - 6));
    for (int k = 0; k + 1 < points; ++k) {
      const float middle = (boundary(k) + boundary(k + 1)) / 2.0f;
      map[count++] = power * middle;
      map[count++] = -(power * middle);
    }
  }
  map[count++] = 0.0f;
  map[count++] = 1.0f;
  std::sort(map.begin(), map.end());
  return map;
}

}  // namespace

std::span<const float, 16> nf4_codebook() { return kNf4; }

std::span<const float, 16> fp4_codebook() {
  static const std::array<float, 16> kCodebook = make_fp4();
  return kCodebook;
}

std::span<const float, 256> dynamic_map() {
  static const std::array<float, 256> kMap = make_dynamic_map();
  return kMap;
}

}  // namespace nibble
