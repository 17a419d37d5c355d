#include "nibble/quantization/formats/awq.h"

#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/base/sha256.h"
#include "nibble/quantization/formats/awq_marlin.h"
#include "nibble/quantization/test_checkpoint.h"

namespace nibble {
namespace {

using testing::HasSubstr;

template <class T>
std::string sha256_of(const std::vector<T>& values) {
  return sha256(std::as_bytes(std::span<const T>(values)));
}

float half(float value) { return fp16_to_float(float_to_fp16(value)); }

// A module with codes, zero points and scales, in whichever layout is asked for.
struct AwqProblem {
  AwqProblem(size_t out, size_t in, size_t group, unsigned seed = 1)
      : out_features(out), in_features(in), group_size(group), num_groups(in / group) {
    std::mt19937 rng(seed);
    for (size_t k = 0; k < out * in; ++k) codes.push_back(static_cast<uint8_t>(rng() % 16));
    for (size_t k = 0; k < num_groups * out; ++k) {
      zeros.push_back(static_cast<float>(rng() % 16));
      scales.push_back(half(static_cast<float>(1 + rng() % 2000) / 4096.f));
    }
  }

  // The weights W(32, 128) of the vectors in float16, quantized as AutoAWQ does, groups of 64.
  static AwqProblem autoawq() {
    AwqProblem p(32, 128, 64);
    const std::vector<float> w = test::formula_weight(32, 128);
    for (size_t o = 0; o < 32; ++o) {
      for (size_t g = 0; g < 2; ++g) {
        const auto begin = w.begin() + static_cast<ptrdiff_t>(o * 128 + g * 64);
        const float max = *std::max_element(begin, begin + 64);
        const float min = *std::min_element(begin, begin + 64);
        const float scale = half(half(max - min) / 15.f);
        const float zero = std::clamp(-std::nearbyint(half(min / scale)), 0.f, 15.f);
        p.scales[g * 32 + o] = scale;
        p.zeros[g * 32 + o] = zero;
        for (size_t i = g * 64; i < g * 64 + 64; ++i) {
          const float code = std::nearbyint(half(w[o * 128 + i] / scale)) + zero;
          p.codes[o * 128 + i] = static_cast<uint8_t>(std::clamp(code, 0.f, 15.f));
        }
      }
    }
    return p;
  }

  AwqConfig config(const char* version) const {
    AwqConfig config;
    config.group_size = static_cast<int64_t>(group_size);
    config.version = version;
    return config;
  }

  std::vector<uint8_t> zero_codes() const { return {zeros.begin(), zeros.end()}; }

  test::MemoryCheckpoint gemm() const {
    // Zero points of all groups, as a weight with groups for inputs.
    std::vector<uint8_t> by_output(zeros.size());
    for (size_t g = 0; g < num_groups; ++g) {
      for (size_t o = 0; o < out_features; ++o) {
        by_output[o * num_groups + g] = static_cast<uint8_t>(zeros[g * out_features + o]);
      }
    }
    test::MemoryCheckpoint checkpoint;
    checkpoint.add("m.qweight", Tensor::of(DType::kI32, {in_features, out_features / 8},
                                           test::pack_awq_gemm(codes, out_features, in_features)));
    checkpoint.add("m.qzeros", Tensor::of(DType::kI32, {num_groups, out_features / 8},
                                          test::pack_awq_gemm(by_output, out_features, num_groups)));
    checkpoint.add("m.scales", test::fp16_tensor({num_groups, out_features}, scales));
    return checkpoint;
  }

  size_t zero_words() const {
    const size_t multiple = group_size >= 128 ? 1 : group_size == 64 ? 2 : 4;
    return ceil_div(ceil_div(num_groups, 8), multiple) * multiple;
  }

  test::MemoryCheckpoint gemv() const {
    const size_t padded = zero_words() * 8;
    std::vector<uint8_t> zero_codes_padded(out_features * padded);
    std::vector<float> scales_padded(out_features * padded);
    for (size_t o = 0; o < out_features; ++o) {
      for (size_t g = 0; g < num_groups; ++g) {
        zero_codes_padded[o * padded + g] = static_cast<uint8_t>(zeros[g * out_features + o]);
        scales_padded[o * padded + g] = scales[g * out_features + o];
      }
    }
    test::MemoryCheckpoint checkpoint;
    checkpoint.add("m.qweight", Tensor::of(DType::kI32, {out_features, in_features / 8},
                                           test::pack_awq_gemv(codes, out_features, in_features)));
    checkpoint.add("m.qzeros", Tensor::of(DType::kI32, {out_features, padded / 8},
                                          test::pack_awq_gemv(zero_codes_padded, out_features, padded)));
    checkpoint.add("m.scales", test::fp16_tensor({out_features, padded}, scales_padded));
    return checkpoint;
  }

  test::MemoryCheckpoint fast(const char* zeros_name) const {
    const size_t padded = zero_words() * 8;
    std::vector<float> scales_padded = scales;
    std::vector<float> scaled_zeros;
    for (size_t k = 0; k < zeros.size(); ++k) scaled_zeros.push_back(-half(scales[k] * zeros[k]));
    scales_padded.resize(padded * out_features);
    scaled_zeros.resize(padded * out_features);
    test::MemoryCheckpoint checkpoint;
    checkpoint.add("m.qweight", Tensor::of(DType::kI16, {out_features / 4, in_features},
                                           test::pack_awq_fast(codes, out_features, in_features)));
    checkpoint.add(std::string("m.") + zeros_name, test::fp16_tensor({padded, out_features}, scaled_zeros));
    checkpoint.add("m.scales", test::fp16_tensor({padded, out_features}, scales_padded));
    return checkpoint;
  }

  // As AutoAWQ's Marlin packer describes it: 16x16 tiles, 1024 codes in the order of `perm`.
  test::MemoryCheckpoint marlin() const {
    std::vector<size_t> perm;
    for (size_t thread = 0; thread < 32; ++thread) {
      for (size_t tile = 0; tile < 4; ++tile) {
        std::vector<size_t> eight;
        for (const size_t right : {0u, 1u}) {
          for (const size_t row :
               {2 * (thread % 4), 2 * (thread % 4) + 1, 2 * (thread % 4 + 4), 2 * (thread % 4 + 4) + 1}) {
            eight.push_back(256 * tile + 16 * row + thread / 4 + 8 * right);
          }
        }
        for (const size_t k : {0u, 2u, 4u, 6u, 1u, 3u, 5u, 7u}) perm.push_back(eight[k]);
      }
    }
    std::vector<uint32_t> words(in_features / 16 * out_features * 2);
    for (size_t position = 0; position < codes.size(); ++position) {
      const size_t row = position / (out_features * 16);
      const size_t in_row = position % (out_features * 16);
      const size_t source = in_row / 1024 * 1024 + perm[in_row % 1024];
      const size_t o = source / 256 * 16 + source % 16;
      const size_t i = row * 16 + source % 256 / 16;
      words[position / 8] |= uint32_t{codes[o * in_features + i]} << (4 * (position % 8));
    }
    std::vector<float> permuted;
    for (size_t k = 0; k < scales.size(); ++k) {
      constexpr size_t kSingle[] = {0, 1, 8, 9, 16, 17, 24, 25};
      const size_t p = k % (num_groups == 1 ? 32 : 64);
      permuted.push_back(
          scales[k - p + (num_groups == 1 ? 2 * (p / 8) + kSingle[p % 8] : p / 8 + 8 * (p % 8))]);
    }
    test::MemoryCheckpoint checkpoint;
    checkpoint.add("m.qweight",
                   Tensor::of(DType::kI32, {in_features / 16, out_features * 2}, std::move(words)));
    checkpoint.add("m.scales", test::fp16_tensor({num_groups, out_features}, permuted));
    return checkpoint;
  }

  Expected<DecodedModule> decode(const test::MemoryCheckpoint& checkpoint, const char* version) const {
    return decode_module(checkpoint, "m", config(version), LinearShape{out_features, in_features});
  }

  size_t out_features, in_features, group_size, num_groups;
  std::vector<uint8_t> codes;        // [out, in]
  std::vector<float> zeros, scales;  // [groups, out]
};

std::vector<uint32_t> words_of(const test::MemoryCheckpoint& checkpoint, const char* name, size_t count) {
  auto words = test::values_of<uint32_t>(checkpoint.tensor(name).value());
  words.resize(count);
  return words;
}

std::string sha256_of(const test::MemoryCheckpoint& checkpoint, const char* name) {
  return sha256(checkpoint.tensor(name).value().bytes);
}

// --- AutoAWQ's vectors ---------------------------------------------------------------------------

TEST(AwqVectors, TheProblemIsTheOneOfAutoAwq) {
  const AwqProblem p = AwqProblem::autoawq();
  std::vector<uint8_t> transposed;
  for (size_t i = 0; i < 128; ++i) {
    for (size_t o = 0; o < 32; ++o) transposed.push_back(p.codes[o * 128 + i]);
  }
  EXPECT_EQ(sha256_of(transposed), "22cda92e419c9a6525c489f568a124555f44f02e3e91fc67e7efc4a0662ba7d2");
  EXPECT_EQ(float_to_fp16(p.scales[0]), 0x3022);
  EXPECT_EQ(float_to_fp16(p.scales[32]), 0x2fef);
}

TEST(AwqVectors, GemmFilesAreThoseOfAutoAwqAndDecode) {
  const AwqProblem p = AwqProblem::autoawq();
  const test::MemoryCheckpoint file = p.gemm();
  EXPECT_EQ(words_of(file, "m.qweight", 4),
            (std::vector<uint32_t>{0xda52c830, 0xfa62c941, 0xea63da51, 0x1b73d961}));
  EXPECT_EQ(words_of(file, "m.qzeros", 4),
            (std::vector<uint32_t>{0x78788878, 0x87777878, 0x77787878, 0x87777787}));
  EXPECT_EQ(sha256_of(file, "m.qweight"), "17d0cd01a3936875d534e9322ce7f088d6df2ba9959237adfd335245e459c961");
  EXPECT_EQ(sha256_of(file, "m.qzeros"), "ce2399024cceb88c24653a99f802e603b65fce79544b806e4a6d94cd08ea965f");
  EXPECT_EQ(sha256_of(file, "m.scales"), "de5a5e257d3514a3b0aca90702ca321674ef81fe17a63f32fbfe90daf26a4417");

  const auto decoded = p.decode(file, "gemm");
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  EXPECT_EQ(decoded->weight.codes, p.codes);
  EXPECT_EQ(decoded->weight.zeros, p.zeros);
  const auto values = to_floats(dequantize(decoded->weight, {}).value()).value();
  std::vector<uint16_t> transposed;
  for (size_t i = 0; i < 128; ++i) {
    for (size_t o = 0; o < 32; ++o) transposed.push_back(float_to_fp16(values[o * 128 + i]));
  }
  EXPECT_EQ(sha256_of(transposed), "95a98ecd5d8c2fd922da768a02324e440f54c1cf253330bf1d20a15b48c9a1e3");
}

TEST(AwqVectors, GemvFilesAreThoseOfAutoAwqAndDecode) {
  const AwqProblem p = AwqProblem::autoawq();
  const test::MemoryCheckpoint file = p.gemv();
  EXPECT_EQ(words_of(file, "m.qweight", 4),
            (std::vector<uint32_t>{0xe71c8420, 0x8acf49f7, 0xd73eb988, 0xdf48d4b4}));
  EXPECT_EQ(words_of(file, "m.qzeros", 2), (std::vector<uint32_t>{0x00000088, 0x00000000}));
  EXPECT_EQ(sha256_of(file, "m.qweight"), "15f6b60098fade476c40dfeb9e91f18f877b7026dc2e4968880fc5bb36301c84");
  EXPECT_EQ(sha256_of(file, "m.qzeros"), "3e3ff21312e6f739dbf26a416cd94433797511bf15e0b10864449a0e6cd20ce1");
  EXPECT_EQ(sha256_of(file, "m.scales"), "ad031c2b0d0ec8a9d948c296b713301e1498ce5a324d9c61095d9be755f771ec");
  const auto decoded = p.decode(file, "gemv");
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  EXPECT_EQ(decoded->format, "awq gemv");
  EXPECT_EQ(decoded->weight.codes, p.codes);
  EXPECT_EQ(decoded->weight.zeros, p.zeros);
  EXPECT_EQ(decoded->weight.scales, p.scales);
}

TEST(AwqVectors, GemvFastFilesAreThoseOfAutoAwqAndDecode) {
  const AwqProblem p = AwqProblem::autoawq();
  const test::MemoryCheckpoint file = p.fast("qzeros");
  auto words = test::values_of<uint16_t>(file.tensor("m.qweight").value());
  words.resize(8);
  EXPECT_EQ(words, (std::vector<uint16_t>{0x4870, 0xb8f2, 0x4994, 0xdb48, 0x8efc, 0x43c1, 0xf7a7, 0xdd8e}));
  EXPECT_EQ(sha256_of(file, "m.qweight"), "ebf3f3f6ddf154e4acaa7c592eb11a0335012205f51db9f90eef535d9bef71f4");
  EXPECT_EQ(sha256_of(file, "m.qzeros"), "2010abcc045d1464704dff0b5d0d711aa248803c44f584a34ea745d37ff34aa3");
  EXPECT_EQ(sha256_of(file, "m.scales"), "2a9742c0995f3e54a1b3ecfdd229593d470e04a3633febb4a1f9c6a4cd187def");
  const auto decoded = p.decode(file, "gemv_fast");
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  EXPECT_EQ(decoded->weight.formula, WeightFormula::kOffset);
  EXPECT_EQ(decoded->weight.codes, p.codes);
  EXPECT_EQ(decoded->weight.scales, p.scales);
  EXPECT_EQ(decoded->weight.zeros[0], -1.033203125f);
  EXPECT_EQ(decoded->weight.zeros[1], -1.021484375f);
  EXPECT_EQ(decoded->weight.zeros[33], -0.89794921875f);
}

TEST(AwqVectors, GemvFastWordsOfCountingCodes) {
  std::vector<uint8_t> expected;
  for (size_t n = 0; n < 4; ++n) {
    for (size_t k = 0; k < 64; ++k) expected.push_back(static_cast<uint8_t>((64 * n + k) % 16));
  }
  std::vector<uint16_t> words;
  for (size_t k = 0; k < 64; ++k) words.push_back(static_cast<uint16_t>(0x8080 + 0x1111 * (k % 8)));
  std::vector<uint8_t> codes(256);
  unpack_awq_fast(words.data(), 4, 64, codes.data());
  EXPECT_EQ(codes, expected);
}

TEST(AwqVectors, GemmWordOfCountingCodes) {
  const uint32_t word = 0x75316420;
  std::vector<uint8_t> codes(8);
  unpack_awq_gemm(&word, 8, 1, codes.data());
  EXPECT_EQ(codes, (std::vector<uint8_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

// --- All layouts ---------------------------------------------------------------------------------

TEST(Awq, EveryLayoutGivesTheSameCodes) {
  for (const size_t group : {32u, 64u, 128u, 256u}) {
    for (const size_t out : {64u, 192u}) {
      SCOPED_TRACE(testing::Message() << "group " << group << ", outputs " << out);
      const AwqProblem p(out, 256, group, static_cast<unsigned>(group + out));
      for (const char* version : {"gemm", "exllama", "ipex"}) {
        const auto decoded = p.decode(p.gemm(), version);
        ASSERT_TRUE(decoded) << to_string(decoded.error());
        EXPECT_EQ(decoded->format, "awq gemm");
        EXPECT_EQ(decoded->weight.codes, p.codes);
        EXPECT_EQ(decoded->weight.zeros, p.zeros);
      }
      const auto gemv = p.decode(p.gemv(), "gemv");
      ASSERT_TRUE(gemv) << to_string(gemv.error());
      EXPECT_EQ(gemv->weight.codes, p.codes);
      EXPECT_EQ(gemv->weight.zeros, p.zeros);
      EXPECT_EQ(gemv->weight.scales, p.scales);
      const auto fast = p.decode(p.fast("qzeros"), "gemv_fast");
      ASSERT_TRUE(fast) << to_string(fast.error());
      EXPECT_EQ(fast->weight.codes, p.codes);
      EXPECT_EQ(fast->weight.scales, p.scales);
      const auto llm_awq = p.decode(p.fast("scaled_zeros"), "llm-awq");
      ASSERT_TRUE(llm_awq) << to_string(llm_awq.error());
      EXPECT_EQ(llm_awq->format, "awq llm-awq");
      EXPECT_EQ(llm_awq->tensors, (std::vector<std::string>{"m.qweight", "m.scaled_zeros", "m.scales"}));
      EXPECT_EQ(llm_awq->weight.zeros, fast->weight.zeros);
      const auto marlin = p.decode(p.marlin(), "marlin");
      ASSERT_FALSE(marlin);
      EXPECT_THAT(marlin.error().what, HasSubstr("zero_point is true"));
    }
  }
}

TEST(Awq, MarlinTilesAreReadWithZerosOfEight) {
  for (const size_t group : {128u, 256u}) {  // with groups, and with one scale per output
    const AwqProblem p(192, 256, group);
    AwqConfig config = p.config("marlin");
    config.zero_point = false;
    const auto decoded = decode_module(p.marlin(), "m", config, LinearShape{192, 256});
    ASSERT_TRUE(decoded) << to_string(decoded.error());
    EXPECT_EQ(decoded->format, "awq marlin");
    EXPECT_EQ(decoded->weight.codes, p.codes);
    EXPECT_EQ(decoded->weight.scales, p.scales);
    EXPECT_EQ(decoded->weight.zeros, std::vector<float>(p.scales.size(), 8.f));
  }
}

RC_GTEST_PROP(Awq, UnpackReturnsWhatWasPacked, ()) {
  const auto out = *rc::gen::inRange<size_t>(1, 20) * 8;
  const auto in = *rc::gen::inRange<size_t>(1, 5) * 64;
  const AwqProblem p(out, in, 64, *rc::gen::arbitrary<unsigned>());
  std::vector<uint8_t> codes(p.codes.size());
  unpack_awq_gemm(test::pack_awq_gemm(p.codes, out, in).data(), out, in, codes.data());
  RC_ASSERT(codes == p.codes);
  codes.assign(codes.size(), 0);
  unpack_awq_gemv(test::pack_awq_gemv(p.codes, out, in).data(), out, in, codes.data());
  RC_ASSERT(codes == p.codes);
  codes.assign(codes.size(), 0);
  unpack_awq_fast(test::pack_awq_fast(p.codes, out, in).data(), out, in, codes.data());
  RC_ASSERT(codes == p.codes);
}

TEST(Awq, GroupSizeMinusOneIsOneGroup) {
  const AwqProblem p(16, 96, 96);
  AwqConfig config = p.config("gemm");
  config.group_size = -1;
  const auto decoded = decode_module(p.gemm(), "m", config, {});
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  EXPECT_EQ(decoded->weight.num_groups, 1u);
  EXPECT_EQ(decoded->weight.codes, p.codes);
}

// --- Zero points that are not stored -------------------------------------------------------------

TEST(Awq, SymmetricFilesHoldEightsOrNothing) {
  AwqProblem p(16, 64, 32);
  p.zeros.assign(p.zeros.size(), 8.f);
  AwqConfig config = p.config("gemm");
  config.zero_point = false;
  test::MemoryCheckpoint file = p.gemm();
  EXPECT_EQ(words_of(file, "m.qzeros", 1)[0], 0x88888888u);
  const auto with = decode_module(file, "m", config, {});
  ASSERT_TRUE(with) << to_string(with.error());
  file.remove("m.qzeros");
  const auto without = decode_module(file, "m", config, {});
  ASSERT_TRUE(without) << to_string(without.error());
  EXPECT_EQ(with->weight.zeros, without->weight.zeros);

  config.zero_point = true;
  const auto refused = decode_module(file, "m", config, {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(to_string(refused.error()),
              HasSubstr("m.qzeros: the tensor is missing, but zero_point is true"));
}

// --- One rounding --------------------------------------------------------------------------------

TEST(Awq, OffsetFormulaRoundsOnce) {
  // 1 + 2^-11 would be a tie between two halves; 2^-24 more or less decides it.
  QuantizedWeight w;
  w.formula = WeightFormula::kOffset;
  w.out_features = w.in_features = 1;
  w.codes = {1};
  w.group_size = w.num_groups = 1;
  w.rounding = w.dtype = DType::kF16;
  w.scales = {1.f + 0x1p-10f};
  w.zeros = {-0x1p-11f + 0x1p-24f};
  float value = 0;
  dequantize_rows(w, 0, 1, &value);
  EXPECT_EQ(value, 1.f + 0x1p-10f);
  // The same less a little: below the tie.
  w.zeros = {-0x1p-11f - 0x1p-24f};
  dequantize_rows(w, 0, 1, &value);
  EXPECT_EQ(value, 1.f);
  // A sum that needs more bits than a float has: 2049 is a tie of halves, 2^-24 more decides it.
  w.codes = {1};
  w.scales = {2049.f};  // as bf16 or fp16 it could not be, but the formula must not care
  w.zeros = {0x1p-24f};
  dequantize_rows(w, 0, 1, &value);
  EXPECT_EQ(value, 2050.f);
}

// --- Contradictions ------------------------------------------------------------------------------

TEST(Awq, VersionMustAgreeWithTheTensors) {
  const AwqProblem p(64, 256, 64);
  const auto expect_refused = [&](const test::MemoryCheckpoint& file, const char* version,
                                  const char* found) {
    const auto decoded = p.decode(file, version);
    ASSERT_FALSE(decoded) << version;
    EXPECT_THAT(
        to_string(decoded.error()),
        HasSubstr(fmt::format("is the layout of version {}, but config.json says {}", found, version)));
  };
  for (const char* version : {"gemv", "gemv_fast", "llm-awq", "marlin"})
    expect_refused(p.gemm(), version, "gemm");
  for (const char* version : {"gemm", "ipex", "gemv_fast", "marlin"})
    expect_refused(p.gemv(), version, "gemv");
  for (const char* version : {"gemm", "gemv", "marlin"})
    expect_refused(p.fast("qzeros"), version, "gemv_fast");
  for (const char* version : {"gemm", "gemv"}) expect_refused(p.marlin(), version, "marlin");
}

TEST(Awq, UnknownVersionIsAnsweredWithTheKnownOnes) {
  const AwqProblem p(16, 64, 32);
  const auto refused = p.decode(p.gemm(), "gemx");
  ASSERT_FALSE(refused);
  EXPECT_THAT(to_string(refused.error()),
              HasSubstr("gemm, gemv, gemv_fast, llm-awq, exllama, ipex and marlin"));
}

TEST(Awq, GptqTensorsAreToldApart) {
  const AwqProblem p(16, 64, 32);
  test::MemoryCheckpoint file = p.gemm();
  file.add("m.g_idx", Tensor::of(DType::kI32, {64}, std::vector<int32_t>(64)));
  const auto by_g_idx = p.decode(file, "gemm");
  ASSERT_FALSE(by_g_idx);
  EXPECT_THAT(by_g_idx.error().what, HasSubstr("stored as GPTQ"));

  test::MemoryCheckpoint other = p.gemm();
  other.add("m.qweight", Tensor::of(DType::kI32, {8, 16}, std::vector<uint32_t>(128)));
  const auto by_shape = p.decode(other, "gemm");
  ASSERT_FALSE(by_shape);
  EXPECT_THAT(by_shape.error().what, HasSubstr("layout of GPTQ"));
}

TEST(Awq, GroupsMustCoverTheInputs) {
  const AwqProblem p(16, 96, 32);
  AwqConfig config = p.config("gemm");
  for (const int64_t group_size : {16, 48, 64, 96, 192, 0, -5}) {
    config.group_size = group_size;
    EXPECT_FALSE(decode_module(p.gemm(), "m", config, {})) << group_size;
    EXPECT_FALSE(summarize_module(p.gemm(), "m", config)) << group_size;
  }
}

TEST(Awq, EmptyAndOddShapesAreRefused) {
  for (const Shape& shape : {Shape{0, 2}, Shape{64, 0}, Shape{64}, Shape{}, Shape{64, 2, 1}}) {
    const AwqProblem p(16, 64, 32);
    test::MemoryCheckpoint file = p.gemm();
    for (const DType dtype : {DType::kI32, DType::kI16}) {
      const size_t count = num_elements(shape).value();
      file.add("m.qweight", dtype == DType::kI32 ? Tensor::of(dtype, shape, std::vector<uint32_t>(count))
                                                 : Tensor::of(dtype, shape, std::vector<uint16_t>(count)));
      for (const char* version : {"gemm", "gemv", "gemv_fast", "marlin"}) {
        EXPECT_FALSE(decode_module(file, "m", p.config(version), {})) << shape_name(shape) << version;
      }
    }
  }
}

}  // namespace
}  // namespace nibble
