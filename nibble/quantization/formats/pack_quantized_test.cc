#include "nibble/quantization/formats/pack_quantized.h"

#include <algorithm>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/base/sha256.h"
#include "nibble/quantization/test_checkpoint.h"

namespace nibble {
namespace {

using test::MemoryCheckpoint;
using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kModule = "model.layers.0.mlp.up_proj";

QuantizedWeight random_weight(int bits, size_t out, size_t in, size_t group, bool sym, unsigned seed = 1) {
  QuantizedWeight weight;
  weight.out_features = out;
  weight.in_features = in;
  weight.bits = bits;
  weight.group_size = group;
  weight.num_groups = in / group;
  weight.rounding = weight.dtype = DType::kF16;
  std::mt19937 rng(seed);
  for (size_t k = 0; k < out * in; ++k) weight.codes.push_back(static_cast<uint8_t>(rng() % (1u << bits)));
  for (size_t k = 0; k < weight.num_groups * out; ++k) {
    weight.zeros.push_back(static_cast<float>(sym ? 1u << (bits - 1) : rng() % (1u << bits)));
    weight.scales.push_back(static_cast<float>(rng() % 2048) / 4096.f);
  }
  return weight;
}

CompressedTensorsGroup group_of(const QuantizedWeight& weight, bool sym) {
  CompressedTensorsGroup group;
  group.bits = weight.bits;
  group.sym = sym;
  group.group_size = weight.num_groups == 1 ? -1 : static_cast<int64_t>(weight.group_size);
  group.actorder = weight.g_idx.empty() ? "" : "group";
  return group;
}

// As a reader gets it: through the words of config.json.
QuantizationConfig config_of(const CompressedTensorsGroup& group) {
  CompressedTensorsConfig config;
  config.groups = {group};
  config.groups.front().name = "group_0";
  auto read = quantization_config_from_json(config.to_json());
  EXPECT_TRUE(read) << (read ? "" : to_string(read.error()));
  return *read;
}

void expect_same(const QuantizedWeight& a, const QuantizedWeight& b) {
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.scales, b.scales);
  EXPECT_EQ(a.zeros, b.zeros);
  EXPECT_EQ(a.g_idx, b.g_idx);
  EXPECT_EQ(a.bits, b.bits);
  EXPECT_EQ(a.group_size, b.group_size);
  EXPECT_EQ(a.num_groups, b.num_groups);
  EXPECT_EQ(a.rounding, b.rounding);
  EXPECT_EQ(a.formula, b.formula);
}

RC_GTEST_PROP(PackQuantized, WhatIsEncodedDecodesToTheSame, ()) {
  const int bits = *rc::gen::element(2, 4, 8);
  const size_t out = *rc::gen::inRange<size_t>(1, 40);
  const size_t group = *rc::gen::element<size_t>(8, 32, 40);
  const size_t in = group * *rc::gen::inRange<size_t>(1, 5);
  const bool sym = *rc::gen::arbitrary<bool>();
  QuantizedWeight weight = random_weight(bits, out, in, group, sym, *rc::gen::arbitrary<unsigned>());
  if (*rc::gen::arbitrary<bool>() && weight.num_groups > 1) {
    for (size_t i = 0; i < in; ++i) weight.g_idx.push_back(static_cast<uint32_t>(i % weight.num_groups));
  }
  weight.rounding = weight.dtype = *rc::gen::element(DType::kF16, DType::kBF16, DType::kF32);
  if (weight.rounding == DType::kBF16) std::fill(weight.scales.begin(), weight.scales.end(), 0.375f);
  const CompressedTensorsGroup asked = group_of(weight, sym);
  const auto tensors = encode_pack_quantized(weight, asked);
  RC_ASSERT(tensors.has_value());
  const auto infos = pack_quantized_tensors(asked, out, in, weight.rounding);
  RC_ASSERT(infos.has_value() && infos->size() == tensors->size());
  for (const auto& [suffix, tensor] : *tensors) RC_ASSERT(tensor.info() == infos->at(suffix));
  MemoryCheckpoint checkpoint;
  checkpoint.add_all(kModule, *tensors);
  RC_ASSERT(quantized_modules(checkpoint) == std::vector<std::string>{kModule});
  const auto decoded = decode_module(checkpoint, kModule, config_of(asked), LinearShape{out, in});
  RC_ASSERT(decoded.has_value());
  RC_ASSERT(decoded->tensors.size() == tensors->size());
  expect_same(decoded->weight, weight);
}

// SHA-256 of what pack_to_int32 of compressed-tensors 0.20.1 makes of these codes, [40, 96], and of zero
// points [40, 3] packed along the outputs.
TEST(PackQuantized, WordsAreThoseOfTheOriginal) {
  struct Row {
    int bits;
    const char* codes;
    const char* zeros;
  };
  constexpr Row kRows[] = {{2, "fdeafcdfd10a4ac2578ee50f10b2b5ee4bc580908fcdfbe73979d4d7ce6b12ec",
                            "850fcec3a80967c59133f43e745dcbe6a41fb31b84bbc2d82ad88695e4ada0b6"},
                           {4, "784b6e4467ea532090dff9c4f3e7f56be465aff99f6acf8344d970c8d30c8be6",
                            "5eff58416a25e1095bb615c63297d7fb7294feca3844175d36dd408a39b99ac1"},
                           {8, "621d789d30ea8b56b6cec3ff48df0f32e01d8a0f6a7de4b10b3634f42216f58a",
                            "2ac58b6128c6198424b8cbac689c59ad98c8759834eb7844e7e1f2aa10ff12f5"}};
  for (const Row& row : kRows) {
    QuantizedWeight weight = random_weight(row.bits, 40, 96, 32, false);
    const size_t most = 1u << row.bits;
    for (size_t o = 0; o < 40; ++o) {
      for (size_t i = 0; i < 96; ++i) {
        weight.codes[o * 96 + i] = static_cast<uint8_t>((7 * o + 3 * i + o * i % 5) % most);
      }
      for (size_t g = 0; g < 3; ++g)
        weight.zeros[g * 40 + o] = static_cast<float>((5 * o + 3 * g + 1) % most);
    }
    const auto tensors = encode_pack_quantized(weight, group_of(weight, false));
    ASSERT_TRUE(tensors) << to_string(tensors.error());
    EXPECT_EQ(sha256(tensors->at("weight_packed").bytes), row.codes) << row.bits;
    EXPECT_EQ(sha256(tensors->at("weight_zero_point").bytes), row.zeros) << row.bits;
  }
}

// The tensors of a small symmetric module, and what reading them says once one thing is changed.
struct Case {
  MemoryCheckpoint checkpoint;
  CompressedTensorsGroup group;

  Case() {
    const QuantizedWeight weight = random_weight(4, 16, 64, 32, true);
    group = group_of(weight, true);
    checkpoint.add_all(kModule, encode_pack_quantized(weight, group).value());
  }
  static std::string name(const char* suffix) { return std::string(kModule) + "." + suffix; }
  std::string error() const {
    const auto decoded = decode_module(checkpoint, kModule, config_of(group), std::nullopt);
    EXPECT_FALSE(summarize_module(checkpoint, kModule, config_of(group)) && decoded);
    return decoded ? "no error" : to_string(decoded.error());
  }
};

TEST(PackQuantized, WhatContradictsItselfIsNamed) {
  {
    Case c;
    c.checkpoint.remove(Case::name("weight_scale"));
    EXPECT_THAT(c.error(), AllOf(HasSubstr("weight_scale"), HasSubstr("missing")));
  }
  {
    Case c;
    c.checkpoint.add(Case::name("weight_shape"),
                     Tensor::of<int64_t>(DType::kI64, {2}, {16, int64_t{1} << 40}));
    EXPECT_THAT(c.error(), HasSubstr("is not the shape of a weight"));
  }
  {
    Case c;
    c.group.bits = 8;
    EXPECT_THAT(c.error(), HasSubstr("[16, 8]"));
  }
  {
    Case c;
    c.group.group_size = 48;
    EXPECT_THAT(c.error(), HasSubstr("does not divide"));
  }
  {
    Case c;
    c.group.sym = false;
    EXPECT_THAT(c.error(), AllOf(HasSubstr("weight_zero_point"), HasSubstr("missing")));
  }
  {
    Case c;
    c.checkpoint.add(Case::name("weight_zero_point"), Tensor::of<int32_t>(DType::kI32, {2, 2}, {0, 0, 0, 0}));
    EXPECT_THAT(c.error(), HasSubstr("says symmetric"));
  }
  {
    Case c;
    c.group.actorder = "group";
    EXPECT_THAT(c.error(), AllOf(HasSubstr("weight_g_idx"), HasSubstr("missing")));
  }
  {
    Case c;
    c.checkpoint.add(Case::name("weight_g_idx"), Tensor::of(DType::kI32, {64}, std::vector<int32_t>(64, 2)));
    EXPECT_THAT(c.error(), HasSubstr("there are 2 groups"));
  }
  {
    Case c;
    c.checkpoint.add(Case::name("weight"), test::fp16_tensor({1}, {0.f}));
    EXPECT_THAT(c.error(), HasSubstr("which of both holds is not said"));
  }
}

TEST(PackQuantized, AnOrderThatWasNeverSetIsNone) {
  Case c;
  c.checkpoint.add(Case::name("weight_g_idx"), Tensor::of(DType::kI32, {64}, std::vector<int32_t>(64, -1)));
  const auto decoded = decode_module(c.checkpoint, kModule, config_of(c.group), std::nullopt);
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  EXPECT_TRUE(decoded->weight.g_idx.empty());
}

TEST(PackQuantized, TensorsOfAnotherMethodAreRefused) {
  const Case c;
  const auto decoded = decode_module(c.checkpoint, kModule, GPTQConfig{}, std::nullopt);
  ASSERT_FALSE(decoded);
  EXPECT_THAT(decoded.error().what, AllOf(HasSubstr("compressed-tensors"), HasSubstr("gptq")));
}

}  // namespace
}  // namespace nibble
