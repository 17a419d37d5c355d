// The code on top of AMX's tiles, on emulated ones: bit by bit the plain loops. strips_test.cc tests the real
// ones where there are any.

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/thread_pool.h"
#include "nibble/kernels/amx_tiles.h"
#include "nibble/kernels/strips_scalar-inl.h"
#include "nibble/kernels/strips_targets.h"
#include "nibble/kernels/test_tokens.h"

#include "nibble/kernels/strips-inl.h"

#include "nibble/kernels/strips_amx-inl.h"
#include "nibble/kernels/strips_wide-inl.h"

namespace nibble::kernels {

using StripsProduct = void (*)(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                               MatrixView<float> y, uint8_t* scratch);
#if NIBBLE_X86
// As on a processor with AMX, but for the tiles (strips_amx_avx512_test.cc).
void strips_product_emulated_tiles_avx512(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end,
                                          MatrixView<float> y, uint8_t* scratch);
#endif

namespace {

std::vector<StripsProduct> products_to_test() {
  std::vector<StripsProduct> products = {wide_product<AmxDots<EmulatedTiles>>};
#if NIBBLE_X86
  if (std::ranges::count(supported_cpu_targets(), CpuTarget::kAvx512) != 0) {
    products.push_back(strips_product_emulated_tiles_avx512);
  }
#endif
  return products;
}

std::vector<float> outputs(StripsProduct product, const Strips& w, const QuantizedInputs& x, size_t begin,
                           size_t end) {
  const size_t tokens = x.rows / x.rows_per_token;
  const size_t width = std::min(end * kStripOutputs, w.out_features) - begin * kStripOutputs;
  std::vector<float> y(tokens * width, -1.f);
  AlignedBuffer scratch(strips_scratch_bytes(w, CpuTarget::kAmx));
  product(w, x, begin, end, MatrixView<float>(y.data(), tokens, width), scratch.as<uint8_t>());
  return y;
}

bool same_bytes(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(StripsAmx, EmulatedTilesGiveTheBytesOfThePlainLoops) {
  ThreadPool pool(1);
  for (const WeightCase& c : strip_cases()) {
    const StripMatrix matrix(random_weight(c, 31), pool, 1 + c.out_features % 4);
    const Strips w = matrix.view();
    for (const size_t per_token : {1u, 2u}) {
      const Tokens tokens(matrix, 54, CpuTarget::kScalar, per_token);
      for (const size_t count : {1u, 8u, 9u, 15u, 16u, 17u, 32u, 33u, 54u}) {
        QuantizedInputs x = tokens.view;
        x.rows = count * per_token;
        const std::vector<float> expected = outputs(strips_product_scalar, w, x, 0, w.num_strips());
        for (const StripsProduct product : products_to_test()) {
          EXPECT_TRUE(same_bytes(outputs(product, w, x, 0, w.num_strips()), expected))
              << c.name() << " " << count << " tokens of " << per_token;
        }
      }
    }
  }
}

// More strips than are multiplied at a time, and more inputs than a chunk has; groups that end in chunks and
// chunks that are one group.
TEST(StripsAmx, AnyNumberOfStripsAndChunks) {
  using enum WeightFormula;
  ThreadPool pool(1);
  const WeightCase kCases[] = {{kAffine, 11 * kStripOutputs, 1088, 4, 128},
                               {kAffine, 18 * kStripOutputs, 640, 8, 64},
                               {kAffine, 9 * kStripOutputs, 1024, 3, 512},
                               {kCodebook, 10 * kStripOutputs, 4096, 4, 64}};
  for (const WeightCase& c : kCases) {
    for (const size_t per_token : {1u, 2u}) {
      const StripMatrix matrix(random_weight(c, 6), pool, per_token == 2 ? kMostBlocksOf16Bits : 1);
      const Strips w = matrix.view();
      const Tokens tokens(matrix, 35, CpuTarget::kScalar, per_token);
      for (const size_t count : {4u, 35u}) {
        QuantizedInputs x = tokens.view;
        x.rows = count * per_token;
        const std::vector<float> expected = outputs(strips_product_scalar, w, x, 0, w.num_strips());
        for (const StripsProduct product : products_to_test()) {
          EXPECT_TRUE(same_bytes(outputs(product, w, x, 0, w.num_strips()), expected)) << c.name() << count;
        }
      }
    }
  }
}

TEST(StripsAmx, StripsAreSplitAnywhere) {
  ThreadPool pool(1);
  const StripMatrix matrix(random_weight({WeightFormula::kAffine, 70, 192, 4, 64}, 3), pool);
  const Strips w = matrix.view();
  const Tokens tokens(matrix, 37, CpuTarget::kScalar);
  for (size_t begin = 0; begin < w.num_strips(); ++begin) {
    for (size_t end = begin + 1; end <= w.num_strips(); ++end) {
      const std::vector<float> expected = outputs(strips_product_scalar, w, tokens.view, begin, end);
      for (const StripsProduct product : products_to_test()) {
        EXPECT_TRUE(same_bytes(outputs(product, w, tokens.view, begin, end), expected))
            << begin << " to " << end;
      }
    }
  }
}

// A worked example by hand: two rows, two columns, four inputs.
TEST(AmxTiles, MultiplySignedBytesByUnsignedOnes) {
  TileShapes shapes;
  shapes.set(0, 2, 8);
  shapes.set(1, 2, 4);
  shapes.set(2, 1, 8);
  const int8_t a[2][4] = {{1, -2, 3, -4}, {-128, 127, 0, 1}};
  const uint8_t b[8] = {255, 1, 0, 2, 10, 20, 30, 40};
  int32_t sums[2][2] = {{1000, 2000}, {3000, 4000}};
  EmulatedTiles::configure(shapes);
  EmulatedTiles::load<0>(sums, sizeof(sums[0]));
  EmulatedTiles::load<1>(a, sizeof(a[0]));
  EmulatedTiles::load<2>(b, sizeof(b));
  EmulatedTiles::dot<0, 1, 2>();
  EmulatedTiles::store<0>(sums, sizeof(sums[0]));
  EmulatedTiles::release();
  EXPECT_EQ(sums[0][0], 1000 + 255 - 2 + 0 - 8);
  EXPECT_EQ(sums[0][1], 2000 + 10 - 40 + 90 - 160);
  EXPECT_EQ(sums[1][0], 3000 - 128 * 255 + 127 + 0 + 2);
  EXPECT_EQ(sums[1][1], 4000 - 1280 + 2540 + 0 + 40);
}

#if NIBBLE_X86
// The real ones, where the processor has them, against the emulated ones.
TEST(AmxTiles, AreWhatTheEmulationSays) {
  if (std::ranges::count(supported_cpu_targets(), CpuTarget::kAmx) == 0) {
    GTEST_SKIP() << "this processor has no AMX";
  }
  for (const size_t rows : {1u, 5u, 16u}) {
    for (const size_t depth : {32u, 64u}) {
      TileShapes shapes;
      shapes.set(0, rows, 64);
      shapes.set(4, rows, depth);
      shapes.set(6, depth / 4, 64);
      alignas(64) uint8_t a[16 * 64];
      alignas(64) uint8_t b[16 * 64];
      for (size_t i = 0; i < sizeof(a); ++i) a[i] = static_cast<uint8_t>(i * 37 + 11);
      for (size_t i = 0; i < sizeof(b); ++i) b[i] = static_cast<uint8_t>(i * 101 + 7);
      alignas(64) int32_t real[16 * 16] = {};
      alignas(64) int32_t emulated[16 * 16] = {};
      AmxTiles::configure(shapes);
      AmxTiles::zero<0>();
      AmxTiles::load<4>(a, 64);
      AmxTiles::load<6>(b, 64);
      AmxTiles::dot<0, 4, 6>();
      AmxTiles::dot<0, 4, 6>();
      AmxTiles::store<0>(real, 64);
      AmxTiles::release();
      EmulatedTiles::configure(shapes);
      EmulatedTiles::zero<0>();
      EmulatedTiles::load<4>(a, 64);
      EmulatedTiles::load<6>(b, 64);
      EmulatedTiles::dot<0, 4, 6>();
      EmulatedTiles::dot<0, 4, 6>();
      EmulatedTiles::store<0>(emulated, 64);
      EmulatedTiles::release();
      EXPECT_EQ(std::memcmp(real, emulated, sizeof(real)), 0) << rows << " rows of " << depth;
    }
  }
}
#endif

}  // namespace
}  // namespace nibble::kernels
