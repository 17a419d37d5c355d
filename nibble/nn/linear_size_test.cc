// Sizes foretold from headers against those of layers that were really built.

#include "nibble/nn/linear_size.h"

#include <gtest/gtest.h>

#include "nibble/kernels/test_weights.h"
#include "nibble/nn/linear.h"

namespace nibble {
namespace {

LinearStorage storage_of(const WeightCase& c) {
  const bool one_zero = c.out_features == 1 && c.group_size >= c.in_features;
  return {.formula = c.formula,
          .bits = c.bits,
          .group_size = c.group_size,
          .zeros_differ = !c.equal_zeros && !one_zero,
          .sorted = c.act_order};
}

// What headers cannot tell: scales that float16 cannot hold, zero points that are no integers.
bool is_usual(const WeightCase& c) { return c.rounding == DType::kF16 && !c.fractional_zeros; }

void expect_same_size(const WeightCase& c) {
  ThreadPool pool(2);
  QuantizedWeight weight = random_weight(c, 3);
  // Scales of files are never subnormal float16 numbers; random ones may be.
  for (float& a : weight.absmax) a = std::max(a, 0.05f);
  const auto linear = make_linear(weight, {}, {}, pool);
  ASSERT_TRUE(linear.has_value()) << to_string(linear.error());
  const LinearSize size = linear_size(c.out_features, c.in_features, storage_of(c), /*huge_pages=*/false);
  EXPECT_EQ(size.weight_bytes, (*linear)->weight_bytes()) << c.name() << " " << (*linear)->kernel();
  EXPECT_GE(size.buffer_bytes, size.weight_bytes) << c.name();

  constexpr size_t kTokens = 40;
  Arena arena;
  ExecutionContext context{pool, arena};
  const std::vector<float> x(kTokens * c.in_features, 0.5f);
  std::vector<float> y(kTokens * c.out_features);
  (*linear)->forward({x.data(), kTokens, c.in_features}, {y.data(), kTokens, c.out_features}, context);
  // Some cache lines between the pieces.
  EXPECT_LE(size.scratch_bytes(kTokens, pool.num_threads()), arena.capacity_bytes()) << c.name();
  Arena foretold;
  foretold.take<std::byte>(size.scratch_bytes(kTokens, pool.num_threads()) + 512);
  EXPECT_GE(foretold.capacity_bytes(), arena.capacity_bytes()) << c.name();
}

TEST(LinearSize, IsThatOfTheLayerForEveryFormulaAndShape) {
  for (const WeightCase& c : weight_cases()) {
    if (is_usual(c)) expect_same_size(c);
  }
  for (const WeightCase& c : llm_int8_cases()) expect_same_size(c);
}

TEST(LinearSize, ScratchOfAGatedPairIsWhatTheArenaHolds) {
  ThreadPool pool(2);
  constexpr size_t kTokens = 3000;
  for (const int bits : {2, 4, 8}) {
    const WeightCase c = {WeightFormula::kAffine, 2000, 256, bits, 128, false, /*equal_zeros=*/true};
    const auto gate = make_linear(random_weight(c, 1), {}, {}, pool).value();
    const auto up = make_linear(random_weight(c, 2), {}, {}, pool).value();
    Arena arena;
    ExecutionContext context{pool, arena};
    const std::vector<float> x(kTokens * c.in_features, 0.5f);
    std::vector<float> y(kTokens * c.out_features);
    ASSERT_TRUE(forward_gated(*gate, *up, kernels::Activation::kSilu, {x.data(), kTokens, c.in_features},
                              {y.data(), kTokens, c.out_features}, context));
    const LinearSize size = linear_size(c.out_features, c.in_features, storage_of(c), false);
    const auto more = gated_scratch_bytes(size, size, kTokens, pool.num_threads());
    ASSERT_TRUE(more.has_value());
    const size_t bytes = size.scratch_bytes(kTokens, pool.num_threads()) + *more;
    // The arena grows by blocks as large as all before.
    EXPECT_LE(bytes, arena.capacity_bytes()) << bits;
    EXPECT_GE(2 * bytes, arena.capacity_bytes()) << bits;
  }
  const LinearSize dense = linear_size(10, 20, {.dtype = DType::kF32}, false);
  EXPECT_FALSE(gated_scratch_bytes(dense, dense, 1, 1).has_value());
}

TEST(LinearSize, FloatWeightsStayInTheFile) {
  const LinearSize size = linear_size(10, 20, {.dtype = DType::kBF16}, true);
  EXPECT_EQ(size.weight_bytes, 10u * 20 * 2);
  EXPECT_EQ(size.buffer_bytes, 0u);
  EXPECT_EQ(size.scratch_bytes(100, 2), 0u);
}

TEST(LinearSize, LargeBuffersFillHugePages) {
  constexpr size_t kPage = size_t{2} << 20;
  EXPECT_EQ(buffer_resident_bytes(kPage - 1, true), kPage - 1);
  EXPECT_EQ(buffer_resident_bytes(kPage + 1, true), 2 * kPage);
  EXPECT_EQ(buffer_resident_bytes(kPage + 1, false), kPage + 1);
  const LinearStorage nibbles = {.group_size = 128};
  const LinearSize plain = linear_size(2048, 5632, nibbles, false);
  EXPECT_EQ(plain.buffer_bytes, plain.weight_bytes);
  EXPECT_EQ(linear_size(2048, 5632, nibbles, true).buffer_bytes,
            3 * kPage + 2048 * 5632 / 128 * sizeof(uint16_t));
}

}  // namespace
}  // namespace nibble
