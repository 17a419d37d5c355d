#include "nibble/quantization/formats/gptq.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/log.h"
#include "nibble/quantization/test_checkpoint.h"

namespace nibble {
namespace {

using testing::HasSubstr;

constexpr GptqPacking kFourBits{.bits = 4};

// --- Zero points ---------------------------------------------------------------------------------

const std::vector<float> kZeros = {8, 0, 3, 15, 1, 0, 0, 7};

TEST(GptqZeros, TrueFieldsAreTaken) {
  EXPECT_EQ(gptq_zeros({0x7001F308}, 1, 8, kFourBits, GptqZeros::kTrue), kZeros);
}

TEST(GptqZeros, WordSubtractionOfGptqModelIsUndone) {
  EXPECT_EQ(gptq_zeros({0x5EF0E1F7}, 1, 8, kFourBits, GptqZeros::kMinusOneWord), kZeros);
  EXPECT_EQ(gptq_zeros({0x5EF0E1F7}, 1, 8, kFourBits, GptqZeros::kMinusOneField),
            (std::vector<float>{8, 0, 2, 15, 1, 0, 15, 6}));
}

TEST(GptqZeros, FieldSubtractionIsUndoneModuloTheField) {
  EXPECT_EQ(gptq_zeros({0x6FF0E2F7}, 1, 8, kFourBits, GptqZeros::kMinusOneField), kZeros);
}

TEST(GptqZeros, WhatAutoGptqDestroysReadsAsZero) {
  EXPECT_EQ(gptq_zeros({0xFFFFFFF7}, 1, 8, kFourBits, GptqZeros::kMinusOneField),
            (std::vector<float>{8, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(GptqZeros, SymmetricWordsOfEveryWidth) {
  const auto all = [](int bits, std::vector<uint32_t> words, size_t count, GptqZeros convention) {
    return gptq_zeros(std::move(words), 1, count, {.bits = bits}, convention);
  };
  for (const GptqZeros minus_one : {GptqZeros::kMinusOneField, GptqZeros::kMinusOneWord}) {
    EXPECT_EQ(all(2, {0x55555555}, 16, minus_one), std::vector<float>(16, 2));
    EXPECT_EQ(all(4, {0x77777777}, 8, minus_one), std::vector<float>(8, 8));
    EXPECT_EQ(all(8, {0x7F7F7F7F}, 4, minus_one), std::vector<float>(4, 128));
  }
  EXPECT_EQ(all(3, {0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D}, 32, GptqZeros::kMinusOneField),
            std::vector<float>(32, 4));
  EXPECT_EQ(all(2, {0xAAAAAAAA}, 16, GptqZeros::kTrue), std::vector<float>(16, 2));
  EXPECT_EQ(all(8, {0x80808080}, 4, GptqZeros::kTrue), std::vector<float>(4, 128));
}

TEST(GptqZeros, ThreeBitsWrapAtEight) {
  // True zeros 0 1 .. 7 less one, modulo 8.
  const std::vector<uint32_t> words = test::pack_gptq({7, 0, 1, 2, 3, 4, 5, 6}, 3, false);
  EXPECT_EQ(gptq_zeros(words, 1, 8, {.bits = 3}, GptqZeros::kMinusOneField),
            (std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}));
}

// --- Whole modules -------------------------------------------------------------------------------

// A random module "m" and what it should decode to.
struct GptqProblem {
  GptqProblem(size_t out, size_t in, size_t group, int bits = 4, bool planar = false, unsigned seed = 1)
      : out_features(out), in_features(in), num_groups((in + group - 1) / group) {
    config.bits = bits;
    config.group_size = static_cast<int64_t>(group);
    config.sym = false;
    config.has_sym = true;
    config.checkpoint_format = planar ? "gptq_p" : "gptq_v2";
    std::mt19937 rng(seed);
    const auto draw = [&] { return static_cast<uint32_t>(rng() % (1u << bits)); };
    for (size_t k = 0; k < out * in; ++k) codes.push_back(static_cast<uint8_t>(draw()));
    for (size_t k = 0; k < num_groups * out; ++k) {
      zeros.push_back(draw());
      // Of both signs: a negative scale mirrors the grid and is legal.
      scales.push_back((static_cast<float>(rng() % 2000) - 1000.f) / 4096.f);
    }
    for (size_t i = 0; i < in; ++i) g_idx.push_back(static_cast<int32_t>(i / group));
    write();
  }

  void write() {
    const bool planar = config.checkpoint_format == "gptq_p";
    std::vector<std::vector<uint32_t>> columns;
    for (size_t o = 0; o < out_features; ++o) {
      columns.push_back(test::pack_gptq({codes.begin() + static_cast<ptrdiff_t>(o * in_features),
                                         codes.begin() + static_cast<ptrdiff_t>((o + 1) * in_features)},
                                        config.bits, planar));
    }
    std::vector<uint32_t> qweight;
    for (size_t r = 0; r < columns[0].size(); ++r) {
      for (const auto& column : columns) qweight.push_back(column[r]);
    }
    std::vector<uint32_t> qzeros;
    for (size_t g = 0; g < num_groups; ++g) {
      const auto row = test::pack_gptq({zeros.begin() + static_cast<ptrdiff_t>(g * out_features),
                                        zeros.begin() + static_cast<ptrdiff_t>((g + 1) * out_features)},
                                       config.bits, planar);
      qzeros.insert(qzeros.end(), row.begin(), row.end());
    }
    const size_t zero_words = qzeros.size() / num_groups;
    checkpoint.add("m.qweight",
                   Tensor::of(DType::kI32, {columns[0].size(), out_features}, std::move(qweight)));
    checkpoint.add("m.qzeros", Tensor::of(DType::kI32, {num_groups, zero_words}, std::move(qzeros)));
    checkpoint.add("m.scales", test::fp16_tensor({num_groups, out_features}, scales));
    checkpoint.add("m.g_idx", Tensor::of(DType::kI32, {in_features}, g_idx));
  }

  Expected<DecodedModule> decode() const {
    return decode_module(checkpoint, "m", config, LinearShape{out_features, in_features});
  }

  // By the formula, in double: exact but for the one rounding to float16.
  float expected(size_t o, size_t i) const {
    const size_t group =
        static_cast<size_t>(g_idx[i] < 0 ? g_idx[i] + static_cast<int32_t>(num_groups) : g_idx[i]);
    const size_t at = group * out_features + o;
    const double scale = fp16_to_float(float_to_fp16(scales[at]));
    const double product = scale * (double{codes[o * in_features + i] * 1.0} - double{zeros[at] * 1.0});
    return fp16_to_float(float_to_fp16(static_cast<float>(product)));
  }

  void expect_equal(const QuantizedWeight& weight) const {
    ASSERT_EQ(weight.out_features, out_features);
    ASSERT_EQ(weight.in_features, in_features);
    EXPECT_EQ(weight.codes, codes);
    std::vector<float> rows(out_features * in_features);
    dequantize_rows(weight, 0, out_features, rows.data());
    for (size_t o = 0; o < out_features; ++o) {
      for (size_t i = 0; i < in_features; ++i) {
        ASSERT_EQ(rows[o * in_features + i], expected(o, i)) << "output " << o << " input " << i;
      }
    }
  }

  size_t out_features, in_features, num_groups;
  GPTQConfig config;
  std::vector<uint8_t> codes;
  std::vector<uint32_t> zeros;
  std::vector<float> scales;
  std::vector<int32_t> g_idx;
  test::MemoryCheckpoint checkpoint;
};

TEST(Gptq, DecodesEveryWidthAndGroupSize) {
  for (const bool planar : {false, true}) {
    for (int bits = 2; bits <= 8; ++bits) {
      if (!planar && bits >= 5 && bits <= 7) continue;
      for (const size_t group : {16u, 32u, 48u, 128u, 4096u}) {
        SCOPED_TRACE(testing::Message() << bits << " bits, group " << group << (planar ? ", planar" : ""));
        const GptqProblem problem(32, 96, group, bits, planar, static_cast<unsigned>(bits) * 10);
        const auto decoded = problem.decode();
        ASSERT_TRUE(decoded) << to_string(decoded.error());
        EXPECT_EQ(decoded->weight.bits, bits);
        EXPECT_EQ(decoded->format, planar ? "gptq_p" : "gptq_v2");
        problem.expect_equal(decoded->weight);
        EXPECT_EQ(decoded->tensors,
                  (std::vector<std::string>{"m.g_idx", "m.qweight", "m.qzeros", "m.scales"}));
      }
    }
  }
}

TEST(Gptq, OneGroupForAllInputs) {
  GptqProblem problem(8, 64, 64);
  problem.config.group_size = -1;
  const auto decoded = problem.decode();
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  EXPECT_EQ(decoded->weight.num_groups, 1u);
  EXPECT_EQ(decoded->weight.group_size, 64u);
  problem.expect_equal(decoded->weight);
}

TEST(Gptq, LastGroupMayBeShort) {
  const GptqProblem problem(8, 80, 32);
  const auto decoded = problem.decode();
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  EXPECT_EQ(decoded->weight.num_groups, 3u);
  problem.expect_equal(decoded->weight);
}

TEST(Gptq, SidesThatFillNoWholeWordsAreRoundedUp) {
  for (const int bits : {2, 3, 4, 8}) {
    SCOPED_TRACE(bits);
    const GptqProblem problem(5, 37, 16, bits);
    const auto decoded = problem.decode();
    ASSERT_TRUE(decoded) << to_string(decoded.error());
    problem.expect_equal(decoded->weight);
  }
}

TEST(Gptq, OneOutput) {
  const GptqProblem problem(1, 64, 32);
  const auto decoded = problem.decode();
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  problem.expect_equal(decoded->weight);
}

TEST(Gptq, NaturalGIdxIsNotKeptWhateverDescActSays) {
  GptqProblem problem(8, 64, 16);
  problem.config.desc_act = true;
  EXPECT_TRUE(problem.decode()->weight.g_idx.empty());
}

TEST(Gptq, ShuffledGIdxIsFollowedWhateverDescActSays) {
  GptqProblem problem(8, 64, 16);
  std::shuffle(problem.g_idx.begin(), problem.g_idx.end(), std::mt19937(3));
  problem.write();
  const auto decoded = problem.decode();
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  EXPECT_EQ(decoded->weight.g_idx.size(), 64u);
  problem.expect_equal(decoded->weight);
}

// What act-order means: codes in the order of importance with groups of neighbours, put back.
TEST(Gptq, GatherThroughGIdxEqualsDequantizingInPermutedOrder) {
  GptqProblem ordered(8, 64, 16);
  std::vector<size_t> perm(64);
  for (size_t i = 0; i < 64; ++i) perm[i] = (i * 29 + 5) % 64;
  GptqProblem shuffled = ordered;
  for (size_t position = 0; position < 64; ++position) {
    shuffled.g_idx[perm[position]] = static_cast<int32_t>(position / 16);
    for (size_t o = 0; o < 8; ++o) shuffled.codes[o * 64 + perm[position]] = ordered.codes[o * 64 + position];
  }
  shuffled.write();
  std::vector<float> a(8 * 64);
  std::vector<float> b(8 * 64);
  dequantize_rows(ordered.decode()->weight, 0, 8, a.data());
  dequantize_rows(shuffled.decode()->weight, 0, 8, b.data());
  for (size_t o = 0; o < 8; ++o) {
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(a[o * 64 + i], b[o * 64 + perm[i]]);
  }
}

TEST(Gptq, NegativeGIdxCountsFromTheEnd) {
  GptqProblem problem(8, 64, 16);
  for (size_t i = 0; i < 64; ++i) problem.g_idx[i] = static_cast<int32_t>(i / 16) - 4;
  problem.write();
  const auto decoded = problem.decode();
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  EXPECT_TRUE(decoded->weight.g_idx.empty());
  problem.expect_equal(decoded->weight);
}

TEST(Gptq, MissingGIdxMeansNaturalGroupsUnlessOrdered) {
  GptqProblem problem(8, 64, 16);
  problem.checkpoint.remove("m.g_idx");
  const auto decoded = problem.decode();
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  problem.expect_equal(decoded->weight);
  EXPECT_TRUE(decode_module(problem.checkpoint, "m", problem.config, {})) << "and without a shape";

  problem.config.desc_act = true;
  const auto refused = problem.decode();
  ASSERT_FALSE(refused);
  EXPECT_THAT(to_string(refused.error()), HasSubstr("desc_act true needs it"));
}

TEST(Gptq, ScalesOfEveryFloatTypeKeepTheirRounding) {
  GptqProblem problem(8, 64, 16);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor f32 = Tensor::of(DType::kF32, {4, 8}, problem.scales);
    problem.checkpoint.add("m.scales", convert_tensor(f32, dtype).value());
    const auto decoded = problem.decode();
    ASSERT_TRUE(decoded) << to_string(decoded.error());
    EXPECT_EQ(decoded->weight.rounding, dtype);
    EXPECT_EQ(dequantize(decoded->weight, {})->dtype, dtype);
    // One rounding to that type: converting once more changes nothing.
    std::vector<float> rows(8 * 64);
    dequantize_rows(decoded->weight, 0, 8, rows.data());
    const Tensor exact = Tensor::of(DType::kF32, {8, 64}, rows);
    EXPECT_EQ(to_floats(convert_tensor(exact, dtype).value()).value(), rows);
  }
}

bool warned(std::string_view part) {
  for (const std::string& text : warnings()) {
    if (text.find(part) != text.npos) return true;
  }
  return false;
}

TEST(Gptq, SymmetricDataDecideBetweenTheTwoFormats) {
  GptqProblem problem(8, 64, 16);
  problem.config.sym = true;
  std::fill(problem.zeros.begin(), problem.zeros.end(), 8u);
  problem.write();
  problem.config.checkpoint_format = "gptq";  // a lie: the fields hold the true zeros
  const auto as_v2 = problem.decode();
  ASSERT_TRUE(as_v2) << to_string(as_v2.error());
  EXPECT_EQ(as_v2->format, "gptq_v2");
  EXPECT_EQ(as_v2->weight.zeros, std::vector<float>(32, 8));
  EXPECT_TRUE(
      warned("says checkpoint_format \"gptq\", but all zero points are stored as 8: reading as gptq_v2"));

  std::fill(problem.zeros.begin(), problem.zeros.end(), 7u);
  problem.write();
  const auto as_v1 = problem.decode();
  EXPECT_EQ(as_v1->format, "gptq");
  EXPECT_EQ(as_v1->weight.zeros, std::vector<float>(32, 8));

  problem.config.checkpoint_format = "gptq_v2";  // the other lie
  const auto turned = problem.decode();
  EXPECT_EQ(turned->format, "gptq");
  EXPECT_EQ(turned->weight.zeros, std::vector<float>(32, 8));
  EXPECT_TRUE(
      warned("says checkpoint_format \"gptq_v2\", but all zero points are stored as 7: reading as gptq"));
}

TEST(Gptq, AsymmetricZerosOfAllEightAreNotSecondGuessed) {
  GptqProblem problem(8, 64, 16);
  std::fill(problem.zeros.begin(), problem.zeros.end(), 8u);
  problem.write();
  problem.config.checkpoint_format = "gptq";
  EXPECT_EQ(problem.decode()->weight.zeros, std::vector<float>(32, 9));
}

TEST(Gptq, WriterDecidesHowZeroZerosAreRead) {
  GptqProblem problem(8, 64, 64);
  problem.config.checkpoint_format = "gptq";
  problem.checkpoint.add("m.qzeros", Tensor::of(DType::kI32, {1, 1}, std::vector<uint32_t>{0x5EF0E1F7}));
  problem.config.quantizer = {"optimum:1.0", "gptqmodel:7.7.0"};
  EXPECT_EQ(problem.decode()->weight.zeros, kZeros);
  problem.config.quantizer = {};
  EXPECT_EQ(problem.decode()->weight.zeros, (std::vector<float>{8, 0, 2, 15, 1, 0, 15, 6}));
  problem.checkpoint.add("m.qzeros", Tensor::of(DType::kI32, {1, 1}, std::vector<uint32_t>{0xFFFFFFF7}));
  EXPECT_TRUE(problem.decode());
  EXPECT_TRUE(warned("m.qzeros: in 1 of 1 words the upper zero points are all ones"));
}

// --- dynamic -------------------------------------------------------------------------------------

GPTQConfig with_rules(const char* json) {
  Json config = parse_json(R"({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": true})").value();
  config["dynamic"] = parse_json(json).value();
  return GPTQConfig::from_json(config).value();
}

TEST(GptqDynamic, FirstMatchingRuleGivesTheParameters) {
  const GPTQConfig config =
      with_rules(R"({"+:.*down": {"bits": 8, "group_size": 32}, ".*down_proj": {"bits": 2},
                     "lm_head": {"bits": 8, "group_size": 64, "sym": false, "desc_act": true}})");
  EXPECT_EQ(gptq_parameters(config, "model.layers.0.mlp.down_proj")->bits, 8);
  EXPECT_EQ(gptq_parameters(config, "model.layers.0.mlp.down_proj")->group_size, 32);
  EXPECT_EQ(gptq_parameters(config, "model.layers.0.mlp.up_proj")->bits, 4);
  const auto head = gptq_parameters(config, "lm_head");
  EXPECT_EQ(head->group_size, 64);
  EXPECT_FALSE(head->sym);
  EXPECT_TRUE(head->desc_act);
  // Anchored at the start only.
  EXPECT_EQ(gptq_parameters(config, "model.lm_head")->bits, 4);
  EXPECT_EQ(gptq_parameters(config, "lm_head_2")->bits, 8);
}

TEST(GptqDynamic, CodesOfASkippedModuleAreReadWithTheGeneralParameters) {
  const GPTQConfig config = with_rules(R"({"+:.*": {"bits": 8}, "-:.*down": {"bits": 2}})");
  EXPECT_EQ(gptq_parameters(config, "a.down")->bits, 4);
  EXPECT_EQ(gptq_parameters(config, "a.up")->bits, 8);
}

TEST(GptqDynamic, OverridesReachTheModule) {
  GptqProblem problem(8, 64, 32, 8);
  problem.config.bits = 4;
  problem.config.group_size = 128;
  problem.config.dynamic = {{.pattern = "m", .overrides = Json{{"bits", 8}, {"group_size", 32}}}};
  const auto decoded = problem.decode();
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  problem.expect_equal(decoded->weight);
  problem.config.dynamic[0].overrides = Json{{"bits", "eight"}};
  EXPECT_FALSE(problem.decode());
}

// --- What is not GPTQ ----------------------------------------------------------------------------

TEST(Gptq, AwqTensorsAreToldApart) {
  GptqProblem problem(32, 64, 32);
  problem.checkpoint.remove("m.g_idx");
  problem.checkpoint.add("m.qweight", Tensor::of(DType::kI32, {64, 4}, std::vector<uint32_t>(256)));
  const auto refused = problem.decode();
  ASSERT_FALSE(refused);
  EXPECT_THAT(to_string(refused.error()), HasSubstr("is the layout of AWQ, but quant_method is gptq"));
}

TEST(Gptq, MarlinTensorsAreRefusedByName) {
  test::MemoryCheckpoint checkpoint;
  checkpoint.add("m.B", Tensor::of(DType::kI32, {4, 128}, std::vector<uint32_t>(512)));
  checkpoint.add("m.s", test::fp16_tensor({1, 64}, std::vector<float>(64)));
  EXPECT_EQ(quantized_modules(checkpoint), std::vector<std::string>{"m"});
  EXPECT_EQ(tensors_of_module(checkpoint, "m"), (std::vector<std::string>{"m.B", "m.s"}));
  const auto refused = decode_module(checkpoint, "m", GPTQConfig{}, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(refused.error().what, HasSubstr("Marlin"));
}

TEST(Gptq, FiveBitsNeedThePlanarFormat) {
  GptqProblem problem(8, 64, 32, 5, /*planar=*/true);
  problem.config.checkpoint_format = "gptq";
  const auto refused = problem.decode();
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what, HasSubstr("5 bits with checkpoint_format \"gptq\""));
}

TEST(Gptq, TensorsShorterThanTheirHeadersAreRefused) {
  for (const char* suffix : {"qweight", "qzeros", "scales", "g_idx"}) {
    GptqProblem problem(8, 64, 32);
    const std::string name = fmt::format("m.{}", suffix);
    Tensor tensor = problem.checkpoint.tensor(name).value();
    tensor.bytes = tensor.bytes.first(tensor.bytes.size() - 1);
    problem.checkpoint.add(name, tensor);
    const auto refused = problem.decode();
    ASSERT_FALSE(refused) << suffix;
    EXPECT_THAT(to_string(refused.error()), HasSubstr("memory: " + name));
  }
}

TEST(Gptq, EmptyAndOddShapesAreRefused) {
  const auto refuse = [](const char* suffix, DType dtype, Shape shape) {
    GptqProblem problem(8, 64, 32);
    const size_t count = num_elements(shape).value();
    Tensor tensor = dtype == DType::kI32 ? Tensor::of(dtype, shape, std::vector<uint32_t>(count))
                                         : test::fp16_tensor(shape, std::vector<float>(count));
    problem.checkpoint.add(std::string("m.") + suffix, tensor);
    EXPECT_FALSE(problem.decode()) << suffix << shape_name(shape);
    EXPECT_FALSE(decode_module(problem.checkpoint, "m", problem.config, {})) << suffix << shape_name(shape);
    EXPECT_FALSE(summarize_module(problem.checkpoint, "m", problem.config)) << suffix << shape_name(shape);
  };
  refuse("qweight", DType::kI32, {0, 8});
  refuse("qweight", DType::kI32, {8, 0});
  refuse("qweight", DType::kI32, {64});
  refuse("qweight", DType::kI32, {});
  refuse("scales", DType::kF16, {0, 8});
  refuse("scales", DType::kF16, {16});
  refuse("scales", DType::kI32, {2, 8});
  refuse("qzeros", DType::kI32, {2, 0});
  refuse("qzeros", DType::kF16, {2, 1});
  refuse("g_idx", DType::kI32, {0});
  refuse("g_idx", DType::kI32, {64, 1});
}

}  // namespace
}  // namespace nibble
