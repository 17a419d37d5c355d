#include "nibble/nn/rotary_embedding.h"

#include <cmath>

#include <gtest/gtest.h>

namespace nibble {
namespace {

// What a token at position 1 is turned by are the frequencies themselves.
struct Angles {
  std::vector<double> frequencies;
  double attention_factor = 0;
};

Angles angles_of(const RopeParameters& parameters, size_t head_dim, size_t max_positions, size_t length) {
  const auto rope = RotaryEmbedding::create(parameters, head_dim, max_positions);
  EXPECT_TRUE(rope.has_value()) << (rope ? "" : to_string(rope.error()));
  const size_t half = rope->rotary_dims() / 2;
  std::vector<float> cos(half), sin(half);
  rope->angles(1, length, cos.data(), sin.data());
  Angles angles;
  for (size_t i = 0; i < half; ++i) angles.frequencies.push_back(std::atan2(double{sin[i]}, double{cos[i]}));
  angles.attention_factor = std::hypot(double{cos[0]}, double{sin[0]});
  return angles;
}

// expected: inv_freq and attention factor that Transformers 5.23.0 computes for the same parameters.
void expect_angles(const Angles& angles, double attention_factor, const std::vector<double>& expected) {
  EXPECT_NEAR(angles.attention_factor, attention_factor, 1e-6);
  ASSERT_EQ(angles.frequencies.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(angles.frequencies[i], expected[i], 3e-7 * expected[i] + 1e-9) << "pair " << i;
  }
}

const std::vector<double> kShort = {1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35};
const std::vector<double> kLong = {1.0, 2.5, 4.0, 5.5, 7.0, 8.5, 10.0, 11.5};

TEST(RotaryEmbedding, DefaultIsPowersOfTheBase) {
  expect_angles(angles_of({}, 8, 100, 1), 1.0, {1.0, 0.1, 0.01, 0.001});
}

TEST(RotaryEmbedding, LinearDividesByTheFactor) {
  expect_angles(angles_of({.rope_type = "linear", .factor = 4}, 16, 256, 1), 1.0,
                {0.25, 0.079056941, 0.0250000004, 0.00790569466, 0.00249999994, 0.000790569466,
                 0.000250000012, 7.90569466e-05});
}

TEST(RotaryEmbedding, DynamicGrowsTheBaseOnlyBeyondTheTrainedLength) {
  const RopeParameters parameters = {.rope_type = "dynamic", .factor = 4};
  expect_angles(angles_of(parameters, 16, 24, 40), 1.0,
                {1.0, 0.262657493, 0.0689889565, 0.0181204677, 0.00475947652, 0.0012501122, 0.000328351336,
                 8.62439338e-05});
  EXPECT_EQ(angles_of(parameters, 16, 24, 24).frequencies, angles_of({}, 16, 24, 24).frequencies);
}

TEST(RotaryEmbedding, YarnInterpolatesLongWaves) {
  expect_angles(
      angles_of({.rope_type = "yarn", .factor = 4, .original_max_position_embeddings = 64}, 16, 256, 1),
      1.138629436111989,
      {1.0, 0.237170815, 0.049999997, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012,
       7.90569466e-05});
  expect_angles(angles_of({.rope_type = "yarn",
                           .factor = 40,
                           .original_max_position_embeddings = 4096,
                           .mscale = 1.0,
                           .mscale_all_dim = 0.5},
                          16, 163840, 1),
                1.1557219901962608,
                {1.0, 0.316227764, 0.100000001, 0.0239147246, 0.00512499968, 0.000849862176, 2.49999994e-05,
                 7.90569447e-06});
}

TEST(RotaryEmbedding, Llama3KeepsShortWaves) {
  expect_angles(angles_of({.rope_type = "llama3",
                           .rope_theta = 500000,
                           .factor = 8,
                           .low_freq_factor = 1,
                           .high_freq_factor = 4,
                           .original_max_position_embeddings = 8192},
                          16, 131072, 1),
                1.0,
                {1.0, 0.193922758, 0.0376060307, 0.00729266508, 0.000524846022, 3.42810235e-05,
                 6.64786967e-06, 1.28917316e-06});
}

TEST(RotaryEmbedding, LongropeSwitchesBehindTheOriginalLength) {
  const RopeParameters parameters = {.rope_type = "longrope",
                                     .original_max_position_embeddings = 16,
                                     .short_factor = kShort,
                                     .long_factor = kLong};
  expect_angles(angles_of(parameters, 16, 512, 16), 1.5,
                {1.0, 0.301169306, 0.0909090936, 0.0274980683, 0.00833333284, 0.00252982229, 0.00076923077,
                 0.000234242791});
  expect_angles(angles_of(parameters, 16, 512, 17), 1.5,
                {1.0, 0.126491114, 0.0250000004, 0.00574959582, 0.00142857141, 0.000372032693, 9.99999975e-05,
                 2.74980684e-05});
  EXPECT_EQ(RotaryEmbedding::create(parameters, 16, 512)->switch_length(), 16u);
}

TEST(RotaryEmbedding, OnlyAPartOfTheHeadMayRotate) {
  const auto rope = RotaryEmbedding::create({.partial_rotary_factor = 0.5}, 64, 100);
  ASSERT_TRUE(rope.has_value());
  EXPECT_EQ(rope->rotary_dims(), 32u);
  EXPECT_FALSE(RotaryEmbedding::create({.partial_rotary_factor = 0.1}, 30, 100).has_value());  // 3 dimensions
}

TEST(RotaryEmbedding, WrongParametersAreNamed) {
  const auto unknown = RotaryEmbedding::create({.rope_type = "spiral"}, 16, 100);
  ASSERT_FALSE(unknown.has_value());
  EXPECT_NE(unknown.error().what.find("spiral"), std::string::npos);
  const auto lengths = RotaryEmbedding::create(
      {.rope_type = "longrope", .short_factor = {1.0}, .long_factor = kLong}, 16, 100);
  EXPECT_FALSE(lengths.has_value());
}

}  // namespace
}  // namespace nibble
