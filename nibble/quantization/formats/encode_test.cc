#include "nibble/quantization/formats/encode.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/base/sha256.h"
#include "nibble/quantization/formats/awq.h"
#include "nibble/quantization/formats/gptq_packing.h"
#include "nibble/quantization/test_checkpoint.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

using testing::HasSubstr;

constexpr AffineLayout kLayouts[] = {AffineLayout::kGptq,       AffineLayout::kGptqV2,
                                     AffineLayout::kGptqPlanar, AffineLayout::kAwqGemm,
                                     AffineLayout::kAwqGemv,    AffineLayout::kAwqGemvFast};

float to_half(float value) { return fp16_to_float(float_to_fp16(value)); }

// Random codes, zero points from 1 and scales of both signs.
QuantizedWeight random_weight(int bits, size_t out, size_t in, size_t group, unsigned seed = 1) {
  QuantizedWeight weight;
  weight.out_features = out;
  weight.in_features = in;
  weight.bits = bits;
  weight.group_size = group;
  weight.num_groups = ceil_div(in, group);
  weight.rounding = DType::kF16;
  std::mt19937 rng(seed);
  for (size_t k = 0; k < out * in; ++k) weight.codes.push_back(static_cast<uint8_t>(rng() % (1u << bits)));
  for (size_t k = 0; k < weight.num_groups * out; ++k) {
    weight.zeros.push_back(static_cast<float>(1 + rng() % ((1u << bits) - 1)));
    weight.scales.push_back(to_half((static_cast<float>(rng() % 2000) - 1000.f) / 4096.f));
  }
  return weight;
}

QuantizationConfig config_of(AffineLayout layout, int bits, size_t group) {
  const std::string name(affine_layout_name(layout));
  if (layout <= AffineLayout::kGptqPlanar) {
    GPTQConfig config;
    config.bits = bits;
    config.group_size = static_cast<int64_t>(group);
    config.sym = false;
    config.checkpoint_format = name;
    return config;
  }
  AwqConfig config;
  config.group_size = static_cast<int64_t>(group);
  config.version = name;
  return config;
}

std::map<std::string, TensorInfo> infos_of(const std::map<std::string, Tensor>& tensors) {
  std::map<std::string, TensorInfo> infos;
  for (const auto& [suffix, tensor] : tensors) infos[suffix] = tensor.info();
  return infos;
}

// Encodes, decodes and compares. What gemv_fast stores is -(scale * zero), not the zero point.
void expect_round_trip(const QuantizedWeight& weight, AffineLayout layout) {
  SCOPED_TRACE(testing::Message() << affine_layout_name(layout) << ", " << weight.bits << " bits, ["
                                  << weight.out_features << ", " << weight.in_features << "], group "
                                  << weight.group_size);
  const auto tensors = encode_affine(weight, layout);
  ASSERT_TRUE(tensors) << to_string(tensors.error());
  const auto expected =
      encoded_tensors(layout, weight.bits, weight.out_features, weight.in_features, weight.group_size);
  ASSERT_TRUE(expected) << to_string(expected.error());
  EXPECT_EQ(infos_of(*tensors), *expected);
  for (const auto& [suffix, tensor] : *tensors) EXPECT_EQ(num_bytes(tensor.info()), tensor.bytes.size());

  test::MemoryCheckpoint checkpoint;
  checkpoint.add_all("m", *tensors);
  const auto decoded = decode_module(checkpoint, "m", config_of(layout, weight.bits, weight.group_size),
                                     LinearShape{weight.out_features, weight.in_features});
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  const QuantizedWeight& found = decoded->weight;
  EXPECT_EQ(found.codes, weight.codes);
  EXPECT_EQ(found.scales, weight.scales);
  EXPECT_EQ(found.g_idx, weight.g_idx);
  EXPECT_EQ(found.num_groups, weight.num_groups);
  std::vector<float> zeros = weight.zeros;
  if (layout == AffineLayout::kAwqGemvFast) {
    for (size_t k = 0; k < zeros.size(); ++k) zeros[k] = to_half(-(weight.scales[k] * zeros[k]));
  }
  EXPECT_EQ(found.zeros, zeros);
  if (layout == AffineLayout::kAwqGemvFast) return;
  std::vector<float> a(weight.codes.size());
  std::vector<float> b(weight.codes.size());
  dequantize_rows(weight, 0, weight.out_features, a.data());
  dequantize_rows(found, 0, weight.out_features, b.data());
  EXPECT_EQ(a, b);
}

std::string refusal(const QuantizedWeight& weight, AffineLayout layout) {
  const auto tensors = encode_affine(weight, layout);
  if (tensors) return "(encoded)";
  EXPECT_EQ(tensors.error().code, ErrorCode::kInvalidArgument);
  return to_string(tensors.error());
}

// --- Round trips ---------------------------------------------------------------------------------

TEST(EncodeAffine, GptqComesBackForEveryWidthAndGroupSize) {
  for (const auto layout : {AffineLayout::kGptq, AffineLayout::kGptqV2, AffineLayout::kGptqPlanar}) {
    for (int bits = 2; bits <= 8; ++bits) {
      if (layout != AffineLayout::kGptqPlanar && bits >= 5 && bits <= 7) continue;
      // The last group of 64 and of 40 is short.
      for (const size_t group : {16u, 32u, 40u, 64u, 96u}) {
        expect_round_trip(random_weight(bits, 32, 96, group, static_cast<unsigned>(bits)), layout);
      }
      expect_round_trip(random_weight(bits, 160, 32, 32), layout);
    }
  }
}

TEST(EncodeAffine, AwqComesBackForEveryLayoutAndGroupSize) {
  for (const auto layout : {AffineLayout::kAwqGemm, AffineLayout::kAwqGemv, AffineLayout::kAwqGemvFast}) {
    for (const size_t group : {32u, 64u, 128u, 384u}) {
      for (const size_t out : {8u, 32u, 200u}) expect_round_trip(random_weight(4, out, 384, group), layout);
    }
    expect_round_trip(random_weight(4, 16, 32 * 40, 32), layout);  // more groups than one padded word holds
  }
  expect_round_trip(random_weight(4, 24, 21, 7), AffineLayout::kAwqGemm);
  expect_round_trip(random_weight(4, 8, 136, 136), AffineLayout::kAwqGemv);
}

TEST(EncodeAffine, TheOrderOfInputsComesBack) {
  for (const auto layout : {AffineLayout::kGptq, AffineLayout::kGptqV2, AffineLayout::kGptqPlanar}) {
    QuantizedWeight weight = random_weight(4, 32, 96, 32);
    for (size_t i = 0; i < 96; ++i) weight.g_idx.push_back(static_cast<uint32_t>(i / 32));
    std::shuffle(weight.g_idx.begin(), weight.g_idx.end(), std::mt19937(3));
    expect_round_trip(weight, layout);
  }
}

TEST(EncodeAffine, ANaturalOrderOfInputsIsNoneToAwq) {
  const QuantizedWeight plain = random_weight(4, 32, 96, 32);
  QuantizedWeight weight = plain;
  for (size_t i = 0; i < 96; ++i) weight.g_idx.push_back(static_cast<uint32_t>(i / 32));
  const auto tensors = encode_affine(weight, AffineLayout::kAwqGemm);
  ASSERT_TRUE(tensors) << to_string(tensors.error());
  EXPECT_FALSE(tensors->contains("g_idx"));
}

TEST(EncodeAffine, GptqAlwaysHasAGIdx) {
  const auto tensors = encode_affine(random_weight(4, 32, 64, 32), AffineLayout::kGptq);
  ASSERT_TRUE(tensors) << to_string(tensors.error());
  std::vector<int32_t> natural(64);
  std::fill(natural.begin() + 32, natural.end(), 1);
  EXPECT_EQ(copy_elements<int32_t>(tensors->at("g_idx")), natural);
}

TEST(EncodeAffine, GroupsOfAllInputsAreGroupSizeZero) {
  for (const AffineLayout layout : kLayouts) {
    EXPECT_EQ(encoded_tensors(layout, 4, 64, 256, 0).value(),
              encoded_tensors(layout, 4, 64, 256, 256).value());
  }
}

// The packers of the tests go code by code, these by runs and tiles: any size must agree.
RC_GTEST_PROP(GptqPacking, PackingIsThatOfTheFormatPage, ()) {
  const bool planar = *rc::gen::arbitrary<bool>();
  const int bits = planar ? *rc::gen::inRange(2, 9) : *rc::gen::element(2, 3, 4, 8);
  const auto in = *rc::gen::inRange<size_t>(1, 200);
  const auto out = *rc::gen::inRange<size_t>(1, 40);
  const GptqPacking packing{.bits = bits, .planar = planar};
  std::mt19937 rng(*rc::gen::arbitrary<uint32_t>());
  std::vector<uint8_t> codes(in * out);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(rng() % (1u << bits));

  const size_t rows = gptq_words(in, packing).value();
  std::vector<uint32_t> packed(rows * out, 0xDEADBEEF);
  pack_gptq_columns(packing, codes.data(), out, in, packed.data());
  for (size_t o = 0; o < out; ++o) {
    const auto column = codes.begin() + static_cast<ptrdiff_t>(o * in);
    const auto words = test::pack_gptq({column, column + static_cast<ptrdiff_t>(in)}, bits, planar);
    for (size_t r = 0; r < rows; ++r) RC_ASSERT(packed[r * out + o] == words[r]);
    std::vector<uint32_t> row(rows, 0xDEADBEEF);
    pack_gptq_row(packing, codes.data() + o * in, in, row.data());
    RC_ASSERT(row == words);
  }
}

RC_GTEST_PROP(AwqPacking, PackingIsThatOfTheFormatPage, ()) {
  const size_t out = 8 * *rc::gen::inRange<size_t>(1, 20);
  const size_t gemm_in = *rc::gen::inRange<size_t>(1, 150);
  const size_t in = 64 * *rc::gen::inRange<size_t>(1, 4);
  std::mt19937 rng(*rc::gen::arbitrary<uint32_t>());
  std::vector<uint8_t> codes(out * std::max(in, gemm_in));
  for (uint8_t& code : codes) code = static_cast<uint8_t>(rng() % 16);

  std::vector<uint32_t> gemm(out * gemm_in / 8);
  pack_awq_gemm(codes.data(), out, gemm_in, gemm.data());
  codes.resize(out * gemm_in);
  RC_ASSERT(gemm == test::pack_awq_gemm(codes, out, gemm_in));

  codes.resize(out * in);
  std::vector<uint32_t> gemv(out * in / 8);
  std::vector<uint16_t> fast(out * in / 4);
  pack_awq_gemv(codes.data(), out, in, gemv.data());
  pack_awq_fast(codes.data(), out, in, fast.data());
  RC_ASSERT(gemv == test::pack_awq_gemv(codes, out, in));
  RC_ASSERT(fast == test::pack_awq_fast(codes, out, in));
}

// --- The vectors of the original packers ---------------------------------------------------------

std::vector<uint32_t> packed_counting(size_t count, unsigned modulus, const GptqPacking& packing) {
  std::vector<uint8_t> codes;
  for (size_t k = 0; k < count; ++k) codes.push_back(static_cast<uint8_t>(k % modulus));
  std::vector<uint32_t> words(gptq_words(count, packing).value());
  pack_gptq_row(packing, codes.data(), count, words.data());
  return words;
}

TEST(GptqPacking, PackedWordsAreThoseOfAutoGptqAndGptqModel) {
  using Words = std::vector<uint32_t>;
  EXPECT_EQ(packed_counting(8, 8, {.bits = 4}), (Words{0x76543210}));
  EXPECT_EQ(packed_counting(16, 4, {.bits = 2}), (Words{0xE4E4E4E4}));
  EXPECT_EQ(packed_counting(4, 4, {.bits = 8}), (Words{0x03020100}));
  EXPECT_EQ(packed_counting(32, 8, {.bits = 3}), (Words{0x88FAC688, 0xC688FAC6, 0xFAC688FA}));
  EXPECT_EQ(packed_counting(32, 8, {.bits = 3, .planar = true}), (Words{0xE4E4E4E4, 0xE4E4E4E4, 0xF0F0F0F0}));
  EXPECT_EQ(packed_counting(32, 32, {.bits = 5, .planar = true}),
            (Words{0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98, 0xFFFF0000}));
  EXPECT_EQ(packed_counting(32, 64, {.bits = 6, .planar = true}),
            (Words{0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98, 0x00000000, 0x55555555}));
}

TEST(AwqPacking, PackedWordsAreThoseOfAutoAwq) {
  const uint8_t counting[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  uint32_t word = 0;
  pack_awq_gemm(counting, 8, 1, &word);
  EXPECT_EQ(word, 0x75316420u);
  std::vector<uint8_t> codes;
  for (size_t k = 0; k < 256; ++k) codes.push_back(static_cast<uint8_t>(k % 16));
  std::vector<uint16_t> words(64);
  pack_awq_fast(codes.data(), 4, 64, words.data());
  const std::vector<uint16_t> eight = {0x8080, 0x9191, 0xA2A2, 0xB3B3, 0xC4C4, 0xD5D5, 0xE6E6, 0xF7F7};
  for (size_t k = 0; k < words.size(); ++k) EXPECT_EQ(words[k], eight[k % 8]) << k;
}

// All zero points of a symmetric weight, as words of qzeros.
std::vector<uint32_t> symmetric_zeros(AffineLayout layout, int bits) {
  QuantizedWeight weight = random_weight(bits, 32, 32, 32);
  weight.zeros.assign(32, static_cast<float>(1u << (bits - 1)));
  return copy_elements<uint32_t>(encode_affine(weight, layout)->at("qzeros"));
}

TEST(EncodeAffine, SymmetricZeroPointsAreTheWordsEveryReaderKnows) {
  const auto v1 = [](int bits) { return symmetric_zeros(AffineLayout::kGptq, bits); };
  EXPECT_EQ(v1(2), std::vector<uint32_t>(2, 0x55555555));
  EXPECT_EQ(v1(3), (std::vector<uint32_t>{0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D}));
  EXPECT_EQ(v1(4), std::vector<uint32_t>(4, 0x77777777));
  EXPECT_EQ(v1(8), std::vector<uint32_t>(8, 0x7F7F7F7F));
  const auto v2 = [](int bits) { return symmetric_zeros(AffineLayout::kGptqV2, bits); };
  EXPECT_EQ(v2(2), std::vector<uint32_t>(2, 0xAAAAAAAA));
  EXPECT_EQ(v2(3), (std::vector<uint32_t>{0x24924924, 0x49249249, 0x92492492}));
  EXPECT_EQ(v2(4), std::vector<uint32_t>(4, 0x88888888));
  EXPECT_EQ(v2(8), std::vector<uint32_t>(8, 0x80808080));
  EXPECT_EQ(symmetric_zeros(AffineLayout::kGptqPlanar, 4), std::vector<uint32_t>(4, 0x88888888));
  EXPECT_EQ(symmetric_zeros(AffineLayout::kAwqGemm, 4), std::vector<uint32_t>(4, 0x88888888));
}

TEST(EncodeAffine, ZeroPointZeroIsTrueInV2AndRefusedInV1) {
  QuantizedWeight weight = random_weight(4, 32, 32, 32);
  weight.zeros.assign(32, 0.f);
  const float zeros[8] = {8, 0, 3, 15, 1, 0, 0, 7};
  std::copy(zeros, zeros + 8, weight.zeros.begin());
  EXPECT_EQ(copy_elements<uint32_t>(encode_affine(weight, AffineLayout::kGptqV2)->at("qzeros"))[0],
            0x7001F308u);
  const std::string message = refusal(weight, AffineLayout::kGptq);
  EXPECT_THAT(message, HasSubstr("the zero point of group 0, output 1 is 0"));
  EXPECT_THAT(message, HasSubstr("The layout gptq_v2 stores it."));
  for (const AffineLayout layout :
       {AffineLayout::kGptqPlanar, AffineLayout::kAwqGemm, AffineLayout::kAwqGemv}) {
    expect_round_trip(weight, layout);
  }
}

// The weights W(32, 128) of the vectors in float16, quantized as AutoAWQ does, groups of 64.
QuantizedWeight autoawq_weight() {
  QuantizedWeight weight = random_weight(4, 32, 128, 64);
  const std::vector<float> w = test::formula_weight(32, 128);
  for (size_t o = 0; o < 32; ++o) {
    for (size_t g = 0; g < 2; ++g) {
      const auto begin = w.begin() + static_cast<ptrdiff_t>(o * 128 + g * 64);
      const auto [min, max] = std::minmax_element(begin, begin + 64);
      const float scale = to_half(to_half(*max - *min) / 15.f);
      const float zero = std::clamp(-std::nearbyint(to_half(*min / scale)), 0.f, 15.f);
      weight.scales[g * 32 + o] = scale;
      weight.zeros[g * 32 + o] = zero;
      for (size_t i = g * 64; i < g * 64 + 64; ++i) {
        const float code = std::nearbyint(to_half(w[o * 128 + i] / scale)) + zero;
        weight.codes[o * 128 + i] = static_cast<uint8_t>(std::clamp(code, 0.f, 15.f));
      }
    }
  }
  return weight;
}

TEST(EncodeAffine, AwqTensorsAreThoseOfAutoAwq) {
  const auto sha = [](AffineLayout layout, const char* suffix) {
    return sha256(encode_affine(autoawq_weight(), layout)->at(suffix).bytes);
  };
  EXPECT_EQ(sha(AffineLayout::kAwqGemm, "qweight"),
            "17d0cd01a3936875d534e9322ce7f088d6df2ba9959237adfd335245e459c961");
  EXPECT_EQ(sha(AffineLayout::kAwqGemm, "qzeros"),
            "ce2399024cceb88c24653a99f802e603b65fce79544b806e4a6d94cd08ea965f");
  EXPECT_EQ(sha(AffineLayout::kAwqGemm, "scales"),
            "de5a5e257d3514a3b0aca90702ca321674ef81fe17a63f32fbfe90daf26a4417");
  EXPECT_EQ(sha(AffineLayout::kAwqGemv, "qweight"),
            "15f6b60098fade476c40dfeb9e91f18f877b7026dc2e4968880fc5bb36301c84");
  EXPECT_EQ(sha(AffineLayout::kAwqGemv, "qzeros"),
            "3e3ff21312e6f739dbf26a416cd94433797511bf15e0b10864449a0e6cd20ce1");
  EXPECT_EQ(sha(AffineLayout::kAwqGemv, "scales"),
            "ad031c2b0d0ec8a9d948c296b713301e1498ce5a324d9c61095d9be755f771ec");
  EXPECT_EQ(sha(AffineLayout::kAwqGemvFast, "qweight"),
            "ebf3f3f6ddf154e4acaa7c592eb11a0335012205f51db9f90eef535d9bef71f4");
  EXPECT_EQ(sha(AffineLayout::kAwqGemvFast, "qzeros"),
            "2010abcc045d1464704dff0b5d0d711aa248803c44f584a34ea745d37ff34aa3");
  EXPECT_EQ(sha(AffineLayout::kAwqGemvFast, "scales"),
            "2a9742c0995f3e54a1b3ecfdd229593d470e04a3633febb4a1f9c6a4cd187def");
}

// --- Files of the original libraries -------------------------------------------------------------

std::vector<std::string> affine_model_names() {
  std::vector<std::string> names;
  for (const std::string& name : test::model_names()) {
    // Marlin is only read.
    if (name.starts_with("gptq-") || (name.starts_with("awq-") && !name.starts_with("awq-marlin"))) {
      names.push_back(name);
    }
  }
  return names;
}

class OriginalFiles : public testing::TestWithParam<std::string> {};
std::string affine_test_name(const testing::TestParamInfo<std::string>& model) {
  std::string name = model.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '-' || c == '.'; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Models, OriginalFiles, testing::ValuesIn(affine_model_names()), affine_test_name);

AffineLayout layout_of(const QuantizationConfig& config) {
  const auto* gptq = std::get_if<GPTQConfig>(&config);
  return affine_layout_from_name(gptq ? gptq->checkpoint_format : std::get<AwqConfig>(config).version)
      .value();
}

// gemv_fast has only the product with the scale: the integer is the one that gives it.
void restore_zeros(QuantizedWeight& weight) {
  if (weight.formula != WeightFormula::kOffset) return;
  for (size_t k = 0; k < weight.zeros.size(); ++k) {
    weight.zeros[k] = weight.scales[k] == 0.f ? 0.f : std::nearbyint(-weight.zeros[k] / weight.scales[k]);
  }
  weight.formula = WeightFormula::kAffine;
}

TEST_P(OriginalFiles, EncodeAgainByteForByte) {
  const auto folder = test::model_folder(GetParam());
  ASSERT_TRUE(folder) << to_string(folder.error());
  const ModelFiles files = find_model(folder->string()).value();
  const Json json = parse_json(files.read_required("config.json").value()).value();
  const auto config = quantization_config_from_json(json.at("quantization_config"));
  ASSERT_TRUE(config) << to_string(config.error());
  const auto checkpoint = open_checkpoint(files).value();
  size_t compared = 0;
  for (const std::string& module : quantized_modules(*checkpoint)) {
    auto decoded = decode_module(*checkpoint, module, *config, std::nullopt);
    ASSERT_TRUE(decoded) << to_string(decoded.error());
    restore_zeros(decoded->weight);
    const auto tensors = encode_affine(decoded->weight, layout_of(*config));
    ASSERT_TRUE(tensors) << module << ": " << to_string(tensors.error());
    for (const auto& [suffix, tensor] : *tensors) {
      const auto original = checkpoint->tensor(module + "." + suffix);
      ASSERT_TRUE(original) << to_string(original.error());
      EXPECT_EQ(tensor.info(), original->info()) << module << "." << suffix;
      EXPECT_TRUE(std::ranges::equal(tensor.bytes, original->bytes)) << module << "." << suffix;
    }
    EXPECT_EQ(tensors->size(), decoded->tensors.size()) << module;
    ++compared;
  }
  EXPECT_GE(compared, 18u);
}

// --- Refusals ------------------------------------------------------------------------------------

TEST(EncodeAffine, BitsThatDoNotFitNameTheLayoutThatHoldsThem) {
  EXPECT_THAT(refusal(random_weight(5, 32, 64, 32), AffineLayout::kGptq),
              HasSubstr("gptq_p holds 2 to 8 bits"));
  EXPECT_THAT(refusal(random_weight(6, 32, 64, 32), AffineLayout::kGptqV2),
              HasSubstr("6 bits do not go into the layout gptq_v2"));
  EXPECT_THAT(refusal(random_weight(3, 32, 64, 32), AffineLayout::kAwqGemm),
              HasSubstr("gptq, gptq_v2 and gptq_p hold it"));
  EXPECT_FALSE(encoded_tensors(AffineLayout::kGptqPlanar, 1, 32, 32, 32));
  EXPECT_FALSE(encoded_tensors(AffineLayout::kGptqPlanar, 9, 32, 32, 32));
}

TEST(EncodeAffine, SizesThatDoNotFillWordsAreRefused) {
  EXPECT_THAT(refusal(random_weight(4, 40, 64, 32), AffineLayout::kGptq),
              HasSubstr("40 outputs and 64 inputs, but gptq needs multiples of 32"));
  EXPECT_THAT(refusal(random_weight(4, 40, 64, 32), AffineLayout::kGptq),
              HasSubstr("The layout gemm holds it"));
  EXPECT_THAT(refusal(random_weight(3, 32, 48, 16), AffineLayout::kGptqV2),
              HasSubstr("No layout holds it: leave the module as it is"));
  EXPECT_THAT(refusal(random_weight(4, 36, 64, 32), AffineLayout::kAwqGemm),
              HasSubstr("36 outputs and 64 inputs, but gemm needs multiples of 8 and 1"));
  EXPECT_THAT(refusal(random_weight(4, 32, 96, 32), AffineLayout::kAwqGemvFast),
              HasSubstr("needs multiples of 8 and 64"));
  EXPECT_FALSE(encoded_tensors(AffineLayout::kGptq, 4, 0, 32, 32));
}

TEST(EncodeAffine, GroupsThatAwqCannotHoldAreRefused) {
  EXPECT_THAT(refusal(random_weight(4, 32, 96, 64), AffineLayout::kAwqGemm),
              HasSubstr("group_size 64 does not divide the 96 inputs"));
  EXPECT_THAT(refusal(random_weight(4, 32, 64, 16), AffineLayout::kAwqGemv),
              HasSubstr("group_size 16, but gemv knows 32, 64 and those from 128"));
}

TEST(EncodeAffine, AnOrderOfInputsIsRefusedByAwq) {
  QuantizedWeight weight = random_weight(4, 32, 64, 32);
  for (size_t i = 0; i < 64; ++i) weight.g_idx.push_back(static_cast<uint32_t>(i % 2));
  for (const auto layout : {AffineLayout::kAwqGemm, AffineLayout::kAwqGemv, AffineLayout::kAwqGemvFast}) {
    EXPECT_THAT(refusal(weight, layout), HasSubstr("The layouts gptq, gptq_v2 and gptq_p store it."));
  }
}

TEST(EncodeAffine, ValuesThatTheTensorsCannotHoldAreRefused) {
  QuantizedWeight weight = random_weight(4, 32, 64, 32);
  weight.zeros[33] = 7.5f;
  for (const AffineLayout layout : kLayouts) {
    EXPECT_THAT(refusal(weight, layout), HasSubstr("the zero point 7.5 of group 1, output 1 is no integer"));
  }
  weight.zeros[33] = 16.f;
  EXPECT_THAT(refusal(weight, AffineLayout::kGptqV2), HasSubstr("the zero point 16"));
  weight.zeros[33] = 8.f;
  for (const float scale : {1e6f, std::numeric_limits<float>::quiet_NaN()}) {
    weight.scales[2] = scale;
    EXPECT_THAT(refusal(weight, AffineLayout::kGptq), HasSubstr("of group 0, output 2 is no float16"));
  }
  weight.scales[2] = 60000.f;
  weight.zeros[2] = 15.f;
  EXPECT_THAT(refusal(weight, AffineLayout::kAwqGemvFast), HasSubstr("The layout gemm stores them apart."));
  weight.formula = WeightFormula::kCodebook;
  EXPECT_THAT(refusal(weight, AffineLayout::kGptq), HasSubstr("no scales and integer zero points"));
}

TEST(AffineLayoutNames, AreThoseOfConfigs) {
  for (const AffineLayout layout : kLayouts) {
    EXPECT_EQ(affine_layout_from_name(affine_layout_name(layout)).value(), layout);
  }
  const auto unknown = affine_layout_from_name("marlin");
  ASSERT_FALSE(unknown);
  EXPECT_THAT(to_string(unknown.error()), HasSubstr("gptq, gptq_v2, gptq_p, gemm, gemv, gemv_fast"));
}

}  // namespace
}  // namespace nibble
