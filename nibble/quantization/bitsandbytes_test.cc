#include "nibble/quantization/bitsandbytes.h"

#include <cmath>
#include <limits>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/base/sha256.h"
#include "nibble/quantization/formats/bnb_4bit.h"
#include "nibble/quantization/formats/formats.h"
#include "nibble/quantization/test_checkpoint.h"

namespace nibble {
namespace {

using testing::HasSubstr;
using Tensors = std::map<std::string, Tensor>;

ThreadPool& pool() {
  static ThreadPool pool(3);
  return pool;
}

Tensor f32_tensor(Shape shape, std::vector<float> values) {
  return Tensor::of(DType::kF32, std::move(shape), std::move(values));
}

Tensor formula_tensor(size_t out, size_t in, DType dtype) {
  return convert_tensor(f32_tensor({out, in}, test::formula_weight(out, in)), dtype).value();
}

Tensors quantize(const Tensor& weight, const Bnb4BitOptions& options) {
  auto made = quantize_bnb_4bit(weight, options, pool());
  EXPECT_TRUE(made) << to_string(made.error());
  return std::move(made).value();
}

std::string hex(const Tensor& tensor, size_t count) {
  std::string text;
  for (const std::byte byte : tensor.bytes.first(count))
    text += fmt::format("{:02x}", static_cast<int>(byte));
  return text;
}

Expected<DecodedModule> decode(const Tensors& tensors) {
  test::MemoryCheckpoint checkpoint;
  checkpoint.add_all("m", tensors);
  return decode_module(checkpoint, "m", BitsAndBytesConfig{}, {});
}

std::string dequantized_sha256(const Tensors& tensors) {
  return sha256(dequantize(decode(tensors)->weight, {})->bytes);
}

std::string text_of(const Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }

// --- Tables --------------------------------------------------------------------------------------

TEST(BnbTables, CodebooksHaveTheOriginalsBits) {
  EXPECT_EQ(bits_of(nf4_codebook()[1]), 0xbf3239b1u);
  EXPECT_EQ(bits_of(nf4_codebook()[8]), 0x3da2faffu);
  EXPECT_EQ(bits_of(nf4_codebook()[14]), 0x3f3913b3u);
  const uint32_t fp4[] = {0,          0x3baaaaab, 0x3f2aaaab, 0x3f800000, 0x3eaaaaab, 0x3f000000,
                          0x3e2aaaab, 0x3e800000, 0,          0xbbaaaaab, 0xbf2aaaab, 0xbf800000,
                          0xbeaaaaab, 0xbf000000, 0xbe2aaaab, 0xbe800000};
  for (size_t code = 0; code < 16; ++code) EXPECT_EQ(bits_of(fp4_codebook()[code]), fp4[code]) << code;
}

TEST(BnbTables, DynamicMapIsTheOneOfPyTorchWithFma) {
  EXPECT_EQ(sha256(std::as_bytes(std::span<const float>(dynamic_map()))),
            "e732639a65f497b4ad684bb166a4467708255edd5207757de8b8f0c7e1fda89c");
  EXPECT_EQ(dynamic_map()[127], 0.f);
  EXPECT_EQ(bits_of(dynamic_map()[128]), 0x3513a3b7u);
  EXPECT_EQ(dynamic_map()[255], 1.f);
  for (size_t k = 1; k <= 127; ++k) EXPECT_EQ(dynamic_map()[127 - k], -dynamic_map()[127 + k]) << k;
}

// --- Vectors of bitsandbytes on CPU --------------------------------------------------------------

TEST(Bnb4BitVectors, Nf4) {
  const Tensors t = quantize(formula_tensor(64, 64, DType::kBF16), {.nf4 = true});
  EXPECT_EQ(t.at("weight").shape, (Shape{2048, 1}));
  EXPECT_EQ(hex(t.at("weight"), 16), "0126c06e5f92fda8779ce16e2c2e72fd");
  EXPECT_EQ(sha256(t.at("weight").bytes), "76fad4d8619bfeb121fe36caf254e0da977e1766418ad4d688a047dad33848e6");
  EXPECT_EQ(hex(t.at("weight.absmax"), 16), "00007c3f0000763f0000793f0000783f");
  EXPECT_EQ(sha256(t.at("weight.absmax").bytes),
            "2cc5a90d85ba463259e7fb6aeb1ce49f53d1a07e0e15ddd62b9903ae5c5dabba");
  EXPECT_EQ(dequantized_sha256(t), "a504a376e8b4bcb5c5f3ceee2a717ed3d1ad2afa6b5146aeecc8a26f6d4c0067");
  EXPECT_EQ(text_of(t.at("weight.quant_state.bitsandbytes__nf4")),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 64]})");
}

TEST(Bnb4BitVectors, Fp4) {
  const Tensors t = quantize(formula_tensor(64, 64, DType::kBF16), {.nf4 = false});
  EXPECT_EQ(hex(t.at("weight"), 16), "bad95b92e36d357191652a92d5d21d32");
  EXPECT_EQ(sha256(t.at("weight").bytes), "e92fdccbe2702f3e3528630f3ceb14fc396eae5c58dca1c66ac676c22bd08ec8");
  EXPECT_EQ(dequantized_sha256(t), "7ce22d635645e6f879ff2339ef80ce566986fc964288b58f0e0ed124898f8cf5");
  EXPECT_TRUE(t.contains("weight.quant_state.bitsandbytes__fp4"));
}

TEST(Bnb4BitVectors, DoubleQuantization) {
  const Tensors t = quantize(formula_tensor(64, 64, DType::kBF16), {.nf4 = true, .double_quant = true});
  EXPECT_EQ(hex(t.at("weight.absmax"), 8), "cc39ae59c10bcc2e");  // 204 57 174 89 193 11 204 46
  EXPECT_EQ(sha256(t.at("weight.absmax").bytes),
            "b4e7254e594521531f49b97823a3de9868ce9e0a5cd63c982e71137da81e4ca5");
  EXPECT_EQ(bits_of(test::values_of<float>(t.at("weight.nested_absmax")).at(0)), 0x3d458000u);
  EXPECT_EQ(dequantized_sha256(t), "32089b0f752d15a0b2edcb26a8c548928fa032d123dba1b2985d4ab58fbf0184");
  EXPECT_EQ(text_of(t.at("weight.quant_state.bitsandbytes__nf4")),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 64], )"
            R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.9700927734375})");
  const Tensors fp4 = quantize(formula_tensor(64, 64, DType::kBF16), {.nf4 = false, .double_quant = true});
  EXPECT_EQ(dequantized_sha256(fp4), "7ce22d635645e6f879ff2339ef80ce566986fc964288b58f0e0ed124898f8cf5");
}

TEST(Bnb4BitEdges, ZeroBlockIsAllSevensInNf4) {
  const Tensors t = quantize(f32_tensor({1, 64}, std::vector<float>(64)), {.nf4 = true});
  EXPECT_EQ(hex(t.at("weight"), 32), std::string(64, '7'));
  EXPECT_EQ(test::values_of<float>(t.at("weight.absmax")), std::vector<float>{0.f});
  const Tensors fp4 = quantize(f32_tensor({1, 64}, std::vector<float>(64)), {.nf4 = false});
  EXPECT_EQ(hex(fp4.at("weight"), 32), std::string(64, '0'));
}

TEST(Bnb4BitEdges, ShortZeroBlockStoresTheTinyAbsmax) {
  const Tensors t = quantize(f32_tensor({1, 3}, {0, 0, 0}), {});
  EXPECT_EQ(bits_of(test::values_of<float>(t.at("weight.absmax")).at(0)), 0x006ce3eeu);
}

TEST(Bnb4BitEdges, OddCountEndsWithTheCodeOfZero) {
  std::vector<float> values;
  for (int i = 0; i <= 64; ++i) values.push_back(static_cast<float>(i - 32));
  const Tensors t = quantize(f32_tensor({1, 65}, values), {.nf4 = true});
  EXPECT_EQ(hex(t.at("weight"), 33), "000001111111122222333344455566677788999aaabbbccccddddeeeeeeefffff7");
  EXPECT_EQ(test::values_of<float>(t.at("weight.absmax")), (std::vector<float>{32, 32}));
}

TEST(Bnb4BitEdges, Nf4TieGoesDown) {
  std::vector<float> values(64);
  values[0] = 1.f;
  for (size_t k = 0; k < 15; ++k) {
    const float threshold = (nf4_codebook()[k] + nf4_codebook()[k + 1]) / 2.f;
    values[1 + k] = threshold;
    values[16 + k] = std::nextafter(threshold, 2.f);
  }
  const Tensors t = quantize(f32_tensor({1, 64}, values), {.nf4 = true});
  EXPECT_EQ(hex(t.at("weight"), 32), "f0123456789abcde123456789abcdef7" + std::string(32, '7'));
}

// By value: the lower one wins a tie, so that a negative tie goes to the larger magnitude.
TEST(Bnb4BitEdges, Fp4TieGoesToTheLowerValue) {
  const uint32_t bounds[] = {0x3b2aaaab, 0x3db00000, 0x3e555556, 0x3e955556,
                             0x3ed55556, 0x3f155556, 0x3f555556};
  const int lower[] = {8, 1, 6, 7, 4, 5, 2};
  const int upper[] = {1, 6, 7, 4, 5, 2, 3};
  const int negative_tie[] = {9, 14, 15, 12, 13, 10, 11};
  std::vector<float> values(64);
  values[0] = 1.f;
  for (size_t k = 0; k < 7; ++k) {
    const float bound = std::bit_cast<float>(bounds[k]);
    values[1 + k] = bound;
    values[8 + k] = std::nextafter(bound, 2.f);
    values[15 + k] = -bound;
  }
  values[22] = 1e-20f;   // between zero and the smallest magnitude: code 8
  values[23] = -1e-20f;  // and code 0
  const auto codes = decode(quantize(f32_tensor({1, 64}, values), {.nf4 = false}))->weight.codes;
  for (size_t k = 0; k < 7; ++k) {
    EXPECT_EQ(codes[1 + k], lower[k]) << k;
    EXPECT_EQ(codes[8 + k], upper[k]) << k;
    EXPECT_EQ(codes[15 + k], negative_tie[k]) << k;
  }
  EXPECT_EQ(codes[22], 8);
  EXPECT_EQ(codes[23], 0);
  EXPECT_EQ(codes[24], 0);
}

TEST(Bnb4BitEdges, Fp4OfAllMinusThree) {
  const Tensors t = quantize(f32_tensor({1, 64}, std::vector<float>(64, -3.f)), {.nf4 = false});
  EXPECT_EQ(hex(t.at("weight"), 32), std::string(64, 'b'));
  EXPECT_EQ(test::values_of<float>(t.at("weight.absmax")), std::vector<float>{3.f});
}

TEST(Bnb4BitEdges, DenormalsAreNotFlushed) {
  std::vector<float> values(64, 1e-41f);
  values[1] = -1e-41f;
  const Tensors t = quantize(f32_tensor({1, 64}, values), {.nf4 = true});
  EXPECT_EQ(test::values_of<float>(t.at("weight.absmax")), std::vector<float>{1e-41f});
}

TEST(Bnb4BitEdges, FirstBadElementIsNamed) {
  for (const bool nan : {true, false}) {
    std::vector<float> values(100 * 70, 1.f);
    for (const size_t at : {6999u, 4207u, 5000u}) {
      values[at] = nan ? std::numeric_limits<float>::quiet_NaN() : -std::numeric_limits<float>::infinity();
    }
    const Tensor weight = f32_tensor({100, 70}, values);
    const std::string expected = nan ? "element [60, 7] is NaN" : "element [60, 7] is infinite";
    const auto four = quantize_bnb_4bit(weight, {}, pool());
    ASSERT_FALSE(four);
    EXPECT_THAT(four.error().what, HasSubstr(expected));
    const auto eight = quantize_bnb_int8(weight, pool());
    ASSERT_FALSE(eight);
    EXPECT_THAT(eight.error().what, HasSubstr(expected));
  }
}

TEST(Bnb4BitEdges, UnusableOptionsAreRefused) {
  const Tensor weight = f32_tensor({3, 5}, std::vector<float>(15));
  EXPECT_FALSE(quantize_bnb_4bit(weight, {.blocksize = 48}, pool()));
  EXPECT_FALSE(quantize_bnb_4bit(weight, {.blocksize = 0}, pool()));
  EXPECT_FALSE(
      quantize_bnb_4bit(f32_tensor({3, 3}, std::vector<float>(9)), {.quant_storage = DType::kBF16}, pool()))
      << "5 bytes are no whole number of bfloat16";
  EXPECT_FALSE(quantize_bnb_4bit(f32_tensor({15}, std::vector<float>(15)), {}, pool()));
  EXPECT_FALSE(quantize_bnb_4bit(f32_tensor({0, 5}, {}), {}, pool()));
  EXPECT_FALSE(quantize_bnb_4bit(Tensor::of(DType::kI32, {1, 1}, std::vector<int32_t>{1}), {}, pool()));
}

// --- Round trips ---------------------------------------------------------------------------------

std::vector<float> random_values(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.f, 0.05f);
  std::vector<float> values(count);
  for (float& value : values) value = normal(rng);
  return values;
}

TEST(Bnb4Bit, EveryBlocksizeStorageAndShapeRoundTrips) {
  for (const size_t blocksize : kBnbBlocksizes) {
    for (const Shape& shape : {Shape{1, 1}, Shape{3, 5}, Shape{17, 129}, Shape{64, 96}, Shape{200, 100}}) {
      for (const bool double_quant : {false, true}) {
        SCOPED_TRACE(testing::Message()
                     << shape_name(shape) << " by " << blocksize << (double_quant ? " nested" : ""));
        const size_t count = shape[0] * shape[1];
        const Tensor weight = f32_tensor(shape, random_values(count, 5));
        const Tensors t =
            quantize(weight, {.nf4 = true, .blocksize = blocksize, .double_quant = double_quant});
        const auto decoded = decode(t);
        ASSERT_TRUE(decoded) << to_string(decoded.error());
        EXPECT_EQ(decoded->tensors.size(), t.size());
        EXPECT_EQ(decoded->weight.group_size, blocksize);
        // Half the widest step between neighbours of NF4 (0.304), and what absmax lost.
        const auto original = test::values_of<float>(weight);
        const auto values = to_floats(dequantize(decoded->weight, {}).value()).value();
        for (size_t e = 0; e < count; ++e) {
          const float absmax = decoded->weight.absmax[e / blocksize];
          ASSERT_NEAR(values[e], original[e], 0.153f * absmax + (double_quant ? 0.03f : 1e-6f)) << e;
        }
      }
    }
  }
}

TEST(Bnb4Bit, StorageTypeChangesTheHeaderOnly) {
  const Tensor weight = formula_tensor(64, 64, DType::kF16);
  const Tensors plain = quantize(weight, {});
  for (const DType storage : {DType::kI8, DType::kF16, DType::kBF16, DType::kF32, DType::kF64}) {
    const Tensors t = quantize(weight, {.quant_storage = storage});
    EXPECT_EQ(t.at("weight").dtype, storage);
    EXPECT_EQ(t.at("weight").shape, (Shape{2048 * 8 / dtype_bits(storage), 1}));
    EXPECT_EQ(sha256(t.at("weight").bytes), sha256(plain.at("weight").bytes));
    EXPECT_EQ(dequantized_sha256(t), dequantized_sha256(plain));
  }
}

RC_GTEST_PROP(Bnb4Bit, BytesDoNotDependOnTheNumberOfThreads, ()) {
  const auto out = *rc::gen::inRange<size_t>(1, 60);
  const auto in = *rc::gen::inRange<size_t>(1, 300);
  const Bnb4BitOptions options{.nf4 = *rc::gen::arbitrary<bool>(),
                               .blocksize = *rc::gen::elementOf(std::vector<size_t>{32, 64, 1024}),
                               .double_quant = *rc::gen::arbitrary<bool>()};
  const Tensor weight = f32_tensor({out, in}, random_values(out * in, *rc::gen::arbitrary<unsigned>()));
  ThreadPool one(1);
  const auto a = quantize_bnb_4bit(weight, options, one);
  const auto b = quantize_bnb_4bit(weight, options, pool());
  RC_ASSERT(a->size() == b->size());
  for (const auto& [suffix, tensor] : *a) {
    RC_ASSERT(tensor.info() == b->at(suffix).info());
    RC_ASSERT(std::equal(tensor.bytes.begin(), tensor.bytes.end(), b->at(suffix).bytes.begin()));
  }
}

TEST(Bnb4Bit, TableOfTheFileIsUsed) {
  Tensors t = quantize(formula_tensor(8, 8, DType::kF32), {});
  std::vector<float> map(16, 0.25f);
  t["weight.quant_map"] = f32_tensor({16}, map);
  const auto decoded = decode(t);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->weight.codebook, map);
}

TEST(Bnb4Bit, StrayTensorBesideTheWeightIsRefused) {
  Tensors t = quantize(formula_tensor(8, 8, DType::kF32), {});
  t["weight.offset"] = f32_tensor({1}, {0.f});
  const auto refused = decode(t);
  ASSERT_FALSE(refused);
  EXPECT_THAT(to_string(refused.error()), HasSubstr("m.weight.offset"));
}

TEST(Bnb4Bit, NestedTensorsNeedANestedState) {
  Tensors t = quantize(formula_tensor(8, 8, DType::kF32), {});
  t["weight.nested_absmax"] = f32_tensor({1}, {0.f});
  EXPECT_FALSE(decode(t));
}

TEST(Bnb4Bit, LayoutOfGptqModelIsRecognisedAndRefused) {
  test::MemoryCheckpoint checkpoint;
  checkpoint.add("m.weight", Tensor::of(DType::kU8, {8, 1}, std::vector<uint8_t>(8)));
  checkpoint.add("m.weight_absmax", f32_tensor({1}, {1.f}));
  EXPECT_EQ(quantized_modules(checkpoint), std::vector<std::string>{"m"});
  const auto refused = decode_module(checkpoint, "m", BitsAndBytesConfig{}, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(refused.error().what, HasSubstr("GPTQModel"));
}

TEST(Bnb4Bit, AnotherQuantMethodIsRefused) {
  test::MemoryCheckpoint checkpoint;
  checkpoint.add_all("m", quantize(formula_tensor(8, 8, DType::kF32), {}));
  const auto refused = decode_module(checkpoint, "m", GPTQConfig{}, {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what, HasSubstr("those of bitsandbytes, but quant_method is gptq"));
}

// --- quant_state ---------------------------------------------------------------------------------

TEST(BnbQuantState, AnyOrderAndWhiteSpaceIsRead) {
  const auto state = parse_quant_state(
      " {\"nested_offset\": 1e-1,\n\"shape\":[3,5],\"nested_dtype\":\"float32\", \"dtype\": "
      "\"torch.float16\","
      "\"nested_blocksize\":256,\"blocksize\":4096,\"quant_type\":\"fp4\"}\n");
  ASSERT_TRUE(state) << to_string(state.error());
  EXPECT_EQ(*state, (BnbQuantState{.quant_type = "fp4",
                                   .blocksize = 4096,
                                   .dtype = DType::kF16,
                                   .out_features = 3,
                                   .in_features = 5,
                                   .nested = true,
                                   .nested_blocksize = 256,
                                   .nested_offset = 0.1f}));
}

TEST(BnbQuantState, OffsetIsWrittenAsPythonWritesDoubles) {
  const auto written = [](float offset) {
    BnbQuantState state;
    state.nested = true;
    state.nested_offset = offset;
    const std::string text = to_text(state);
    return text.substr(text.rfind(' ') + 1);
  };
  EXPECT_EQ(written(0.1f), "0.10000000149011612}");
  EXPECT_EQ(written(1.f), "1.0}");
  EXPECT_EQ(written(0.f), "0.0}");
  EXPECT_EQ(written(0x1p-20f), "9.5367431640625e-07}");
  EXPECT_EQ(written(0.0001220703125f), "0.0001220703125}");
  EXPECT_EQ(written(1234567.f), "1234567.0}");
}

RC_GTEST_PROP(BnbQuantState, TextRoundTrips, (bool nested)) {
  BnbQuantState state;
  state.quant_type = *rc::gen::element("nf4", "fp4");
  state.blocksize =
      *rc::gen::elementOf(std::vector<size_t>(std::begin(kBnbBlocksizes), std::end(kBnbBlocksizes)));
  state.dtype = *rc::gen::element(DType::kF16, DType::kBF16, DType::kF32);
  state.out_features = *rc::gen::inRange<size_t>(1, 1 << 20);
  state.in_features = *rc::gen::inRange<size_t>(1, 1 << 20);
  state.nested = nested;
  const float offset = std::bit_cast<float>(*rc::gen::arbitrary<uint32_t>());
  if (nested && std::isfinite(offset)) state.nested_offset = offset;
  RC_ASSERT(parse_quant_state(to_text(state)).value() == state);
}

TEST(BnbQuantState, EachFaultIsRefused) {
  const std::string good =
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 64]})";
  ASSERT_TRUE(parse_quant_state(good));
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  for (const std::string& text :
       {std::string(),
        std::string("[]"),
        std::string("null"),
        good.substr(0, 40),
        good + "x",
        with("\"nf4\"", "\"nf5\""),
        with("\"nf4\"", "4"),
        with("64", "63"),
        with("64", "64.0"),
        with("64", "\"64\""),
        with("64", "-64"),
        with("\"bfloat16\"", "\"int8\""),
        with("\"bfloat16\"", "null"),
        with("[64, 64]", "[64]"),
        with("[64, 64]", "[64, 64, 1]"),
        with("[64, 64]", "[0, 64]"),
        with("[64, 64]", "[64, -1]"),
        with("[64, 64]", "[64, 0.5]"),
        with("[64, 64]", "[4294967296, 4294967296]"),
        with("[64, 64]", "64"),
        with("\"blocksize\": 64, ", ""),
        with("\"dtype\"", "\"type\""),
        with("{", "{\"blocksize\": 64, "),
        with("}", ", \"nested_offset\": 0.5}"),
        with("}", R"(, "nested_blocksize": 256, "nested_dtype": "float16", "nested_offset": 0.5})"),
        with("}", R"(, "nested_blocksize": 255, "nested_dtype": "float32", "nested_offset": 0.5})"),
        with("}", R"(, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": "x"})"),
        with("}", R"(, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 1e300})")}) {
    EXPECT_FALSE(parse_quant_state(text)) << text;
  }
}

// --- LLM.int8 ------------------------------------------------------------------------------------

TEST(BnbInt8, VectorOfTheOriginal) {
  const auto t = quantize_bnb_int8(formula_tensor(8, 32, DType::kF16), pool()).value();
  EXPECT_EQ(test::values_of<float>(t.at("SCB")),
            (std::vector<float>{0.984375f, 0.9609375f, 0.94140625f, 0.962890625f, 0.880859375f, 0.912109375f,
                                0.984375f, 0.953125f}));
  auto row = test::values_of<int8_t>(t.at("weight"));
  EXPECT_EQ(sha256(t.at("weight").bytes), "6619d3a18456a89c9af20c04ed64b1bb151350c3a790a080e202561ab4af53fa");
  row.resize(32);
  EXPECT_EQ(row, (std::vector<int8_t>{-127, -102, -62, -8, 61,  -109, -11, 102, -25, 117, 20,
                                      -63,  123,  69,  30, 6,   -4,   1,   20,  54,  103, -88,
                                      -10,  82,   -65, 57, -61, 90,   1,   -73, 122, 77}));
  EXPECT_EQ(t.at("weight_format").shape, Shape{});
  EXPECT_EQ(test::values_of<uint8_t>(t.at("weight_format")), std::vector<uint8_t>{0});
}

// PyTorch computes 127 / SCB as the reciprocal times 127; for some absmax a tie falls to the other
// side than with one division.
TEST(BnbInt8, ScaleIsTheReciprocalTimes127) {
  size_t different = 0;
  for (uint16_t half = 0x3C00; half < 0x4000; ++half) {  // 1 to 2
    const float absmax = fp16_to_float(half);
    const float value = absmax / 2.f;  // 63.5 steps: a tie
    const auto t = quantize_bnb_int8(f32_tensor({1, 2}, {absmax, value}), pool()).value();
    const float scale = 1.f / absmax * 127.f;
    EXPECT_EQ(test::values_of<int8_t>(t.at("weight")).at(1),
              static_cast<int8_t>(std::nearbyint(value * scale)));
    different += std::nearbyint(value * scale) != std::nearbyint(value * (127.f / absmax));
  }
  EXPECT_GT(different, 0u);
}

TEST(BnbInt8, ZeroRowHasZeroScaleAndCodes) {
  std::vector<float> values(16);
  values[8] = 0.5f;
  const auto t = quantize_bnb_int8(f32_tensor({2, 8}, values), pool()).value();
  EXPECT_EQ(test::values_of<float>(t.at("SCB")), (std::vector<float>{0.f, 0.5f}));
  const auto weight = decode(t)->weight;
  std::vector<float> rows(16);
  dequantize_rows(weight, 0, 2, rows.data());
  EXPECT_EQ(rows, values);
}

TEST(BnbInt8, ValuesBeyondFloat16AreRefused) {
  const auto refused = quantize_bnb_int8(f32_tensor({1, 2}, {1.f, 1e5f}), pool());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what, HasSubstr("element [0, 1] is 100000"));
}

TEST(BnbInt8, ThresholdComesFromTheConfigAndMissingFormatMeansRows) {
  test::MemoryCheckpoint checkpoint;
  checkpoint.add_all("m", quantize_bnb_int8(formula_tensor(8, 32, DType::kF16), pool()).value());
  checkpoint.remove("m.weight_format");
  BitsAndBytesConfig config;
  for (const double threshold : {0.0, 4.5}) {
    config.llm_int8_threshold = threshold;
    const auto decoded = decode_module(checkpoint, "m", config, LinearShape{8, 32});
    ASSERT_TRUE(decoded) << to_string(decoded.error());
    EXPECT_EQ(decoded->weight.outlier_threshold, static_cast<float>(threshold));
    EXPECT_EQ(decoded->format, "bitsandbytes int8");
    EXPECT_EQ(decoded->tensors, (std::vector<std::string>{"m.SCB", "m.weight"}));
  }
}

TEST(BnbInt8, AllCodesDecode) {
  std::vector<int8_t> codes;
  for (int code = -128; code < 128; ++code) codes.push_back(static_cast<int8_t>(code));
  Tensors t;
  t["weight"] = Tensor::of(DType::kI8, {1, 256}, codes);
  t["SCB"] = f32_tensor({1}, {2.f});
  std::vector<float> row(256);
  dequantize_rows(decode(t)->weight, 0, 1, row.data());
  for (size_t k = 0; k < 256; ++k) {
    EXPECT_EQ(row[k], static_cast<float>(codes[k]) * 2.f * 7.874015718698502e-3f) << k;
  }
}

// --- On the fly ----------------------------------------------------------------------------------

std::shared_ptr<test::MemoryCheckpoint> float_model() {
  auto model = std::make_shared<test::MemoryCheckpoint>();
  model->add("a.weight", formula_tensor(48, 40, DType::kF16));
  model->add("a.bias", test::fp16_tensor({48}, std::vector<float>(48)));
  model->add("b.weight", formula_tensor(7, 9, DType::kBF16));
  model->add("norm.weight", test::fp16_tensor({40}, std::vector<float>(40)));
  return model;
}

TEST(OnTheFly, LooksLikeWhatTheQuantizersStore) {
  for (const int mode : {0, 1, 2, 3}) {
    SCOPED_TRACE(mode);
    BitsAndBytesConfig config;
    config.load_in_8bit = mode == 0;
    config.load_in_4bit = mode != 0;
    config.bnb_4bit_quant_type = mode == 3 ? "fp4" : "nf4";
    config.bnb_4bit_use_double_quant = mode == 2;
    const auto model = float_model();
    const auto view = quantize_on_the_fly(model, config, {"a", "b"}, pool());
    EXPECT_EQ(quantized_modules(*view), (std::vector<std::string>{"a", "b"}));

    for (const std::string module : {"a", "b"}) {
      const Tensor weight = model->tensor(module + ".weight").value();
      const Tensors expected = mode == 0 ? quantize_bnb_int8(weight, pool()).value()
                                         : quantize(weight, {.nf4 = mode != 3, .double_quant = mode == 2});
      for (const auto& [suffix, tensor] : expected) {
        const std::string name = module + "." + suffix;
        ASSERT_NE(view->find(name), nullptr) << name;
        EXPECT_EQ(*view->find(name), tensor.info()) << name << ": the header before the bytes";
        const auto found = view->tensor(name);
        ASSERT_TRUE(found) << to_string(found.error());
        EXPECT_EQ(found->info(), tensor.info()) << name;
        EXPECT_EQ(sha256(found->bytes), sha256(tensor.bytes)) << name;
      }
      EXPECT_TRUE(decode_module(*view, module, config, {}));
      view->drop(module + ".weight");
      EXPECT_TRUE(view->tensor(module + ".weight")) << "and comes back";
    }
    EXPECT_EQ(*view->find("norm.weight"), *model->find("norm.weight"));
    EXPECT_EQ(sha256(view->tensor("a.bias")->bytes), sha256(model->tensor("a.bias")->bytes));
    EXPECT_EQ(view->file_of("a.weight.absmax"), "memory");
    EXPECT_FALSE(view->tensor("a.nothing"));
  }
}

TEST(OnTheFly, BadWeightIsNamed) {
  const auto model = float_model();
  std::vector<float> values(9, 1.f);
  values[5] = std::numeric_limits<float>::quiet_NaN();
  model->add("b.weight", f32_tensor({3, 3}, values));
  BitsAndBytesConfig config;
  config.load_in_4bit = true;
  const auto view = quantize_on_the_fly(model, config, {"b"}, pool());
  const auto refused = decode_module(*view, "b", config, {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(to_string(refused.error()), HasSubstr("memory: b.weight: element [1, 2] is NaN"));
}

}  // namespace
}  // namespace nibble
