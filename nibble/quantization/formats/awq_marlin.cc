#include "nibble/quantization/formats/awq_marlin.h"

namespace nibble {

void unpack_awq_marlin(const uint32_t* qweight, size_t out_features, size_t in_features, uint8_t* codes) {
  // A row of words covers 16 inputs; 128 of its words cover 64 outputs, as four 16x16 tiles.
  // Word 4 t + j belongs to thread t of a warp and tile j. A tensor core wants from thread t, in
  // this order, the rows 2m, 2m + 1, 2m + 8, 2m + 9 (m = t % 4) of column t / 4, then the same rows
  // of the column 8 further right. The nibbles of the word hold these eight as 0 2 4 6 1 3 5 7.
  constexpr size_t kRows[4] = {0, 1, 8, 9};
  constexpr size_t kNibbleOf[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  for (size_t i = 0; i < in_features; i += kMarlinInputs) {
    for (size_t o = 0; o < out_features; o += kMarlinOutputs) {
      for (size_t thread = 0; thread < 32; ++thread) {
        for (size_t tile = 0; tile < 4; ++tile) {
          const uint32_t word = *qweight++;
          for (size_t e = 0; e < 8; ++e) {
            const size_t input = i + 2 * (thread % 4) + kRows[e % 4];
            const size_t output = o + 16 * tile + thread / 4 + 8 * (e / 4);
            codes[output * in_features + input] = static_cast<uint8_t>(word >> (4 * kNibbleOf[e]) & 0xF);
          }
        }
      }
    }
  }
}

std::vector<float> unpermute_marlin_scales(const std::vector<float>& scales, size_t num_groups,
                                           size_t out_features) {
  // With groups, 64 scales are stored as an 8x8 square, transposed. With one scale per output
  // (num_groups 1), 32 of them lie as row pairs of the accumulators: thread 4k + i holds the
  // outputs 2i and 2i + 1 of each 8.
  constexpr size_t kSingle[8] = {0, 1, 8, 9, 16, 17, 24, 25};
  std::vector<float> ordered(scales.size());
  for (size_t s = 0; s < num_groups * out_features; ++s) {
    const size_t block = num_groups == 1 ? 32 : 64;
    const size_t p = s % block;
    const size_t original = num_groups == 1 ? 2 * (p / 8) + kSingle[p % 8] : p / 8 + 8 * (p % 8);
    ordered[s - p + original] = scales[s];
  }
  return ordered;
}

}  // namespace nibble
