#include "nibble/checkpoint/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/checkpoint/gguf_builder.h"
#include "nibble/checkpoint/gguf_quants.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Expected<GgufHeader> parse_bytes(std::string_view file) { return parse_gguf(std::as_bytes(std::span(file))); }

std::string gguf_refusal(std::string_view file) {
  const auto header = parse_bytes(file);
  return header ? "accepted" : to_string(header.error());
}

TEST(Gguf, ReadsMetadataAndTensors) {
  GgufBuilder builder;
  builder.add<uint32_t>("u", 7).add<int32_t>("i", -7).add("b", true).add<std::string>("s", "text");
  builder.add("f", 1e-5f).add_list<std::string>("l", {"a", ""}).add_list<int32_t>("n", {1, -2});
  builder.add_floats("x", {3, 2}, {0, 1, 2, 3, 4, 5}).add_floats("y", {1}, {6});
  for (const uint32_t version : {2u, 3u}) {
    builder.version = version;
    const std::string file = builder.build();
    const auto header = parse_bytes(file);
    ASSERT_TRUE(header) << to_string(header.error());
    EXPECT_EQ(gguf_integer(*header, "u").value(), 7u);
    EXPECT_EQ(gguf_bool(*header, "b").value(), true);
    EXPECT_EQ(gguf_string(*header, "s").value(), "text");
    EXPECT_EQ(gguf_number(*header, "f").value(), 1e-5) << "the decimal that was meant";
    EXPECT_EQ(*gguf_array(*header, "l").value(), Json::array({"a", ""}));
    EXPECT_EQ(*gguf_array(*header, "n").value(), Json::array({1, -2}));
    EXPECT_EQ(gguf_string(*header, "nothing").value(), std::nullopt);
    EXPECT_EQ(gguf_array(*header, "nothing").value(), nullptr);
    EXPECT_EQ(header->tensors.at("x").shape, (Shape{2, 3})) << "rows first";
    EXPECT_EQ(header->tensors.at("x").bytes, 24u);
    EXPECT_EQ(header->tensors.at("y").begin, file.size() - 4);
  }
}

TEST(Gguf, AValueOfAnotherKindIsAnError) {
  GgufBuilder builder;
  builder.add<std::string>("s", "text").add<int32_t>("i", -7).add<std::string>("bad", "\xC3(");
  const std::string file = builder.build();
  const GgufHeader header = parse_bytes(file).value();
  EXPECT_EQ(to_string(gguf_integer(header, "s").error()), "s: a string where an integer is expected");
  EXPECT_EQ(to_string(gguf_string(header, "i").error()), "i: an integer where a string is expected");
  EXPECT_THAT(to_string(gguf_integer(header, "i").error()), HasSubstr("-7 is negative"));
  EXPECT_THAT(to_string(gguf_array(header, "i").error()), HasSubstr("list is expected"));
  EXPECT_THAT(to_string(gguf_string(header, "bad").error()), HasSubstr("UTF-8"));
}

TEST(Gguf, OtherVersionsAreNamed) {
  GgufBuilder builder;
  builder.version = 1;
  EXPECT_THAT(gguf_refusal(builder.build()), HasSubstr("GGUF version 1"));
  builder.version = 0x03000000;
  EXPECT_THAT(gguf_refusal(builder.build()), HasSubstr("big-endian"));
  EXPECT_THAT(gguf_refusal("GGML and more"), HasSubstr("not a GGUF file"));
}

TEST(Gguf, ACutFileIsCalledAnIncompleteDownload) {
  GgufBuilder builder;
  builder.add<std::string>("s", "text").add_list<uint32_t>("l", {1, 2}).add_floats("x", {2}, {1, 2});
  const std::string whole = builder.build();
  EXPECT_EQ(gguf_refusal(whole), "accepted");
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THAT(gguf_refusal(whole.substr(0, length)), HasSubstr("download is incomplete")) << length;
  }
}

TEST(Gguf, CountsThatTheFileCannotHoldAreRefused) {
  const auto with = [](auto change) {
    GgufBuilder builder;
    change(builder);
    return gguf_refusal(builder.build());
  };
  EXPECT_THAT(with([](auto& b) { b.extra_tensors = uint64_t{1} << 60; }), HasSubstr("tensors, but at most"));
  EXPECT_THAT(with([](auto& b) { b.extra_pairs = uint64_t{1} << 60; }), HasSubstr("pairs, but at most"));
  EXPECT_THAT(with([](auto& b) { b.extra_tensors = 1; }), HasSubstr("a name of 0 bytes")) << "padding";
  // A string of 2^64 - 1 bytes; lists of 2^64 - 1 and of 2^20 elements.
  EXPECT_THAT(with([](auto& b) { b.add_raw("k", std::string("\x08\0\0\0", 4) + std::string(8, '\xFF')); }),
              HasSubstr("needs 18446744073709551615 bytes"));
  EXPECT_THAT(
      with([](auto& b) { b.add_raw("k", std::string("\x09\0\0\0\x04\0\0\0", 8) + std::string(8, '\xFF')); }),
      HasSubstr("more than 8388608 elements"));
  EXPECT_THAT(
      with([](auto& b) { b.add_raw("k", std::string("\x09\0\0\0\x04\0\0\0\0\0\x10\0\0\0\0\0", 16)); }),
      HasSubstr("incomplete"));
  EXPECT_THAT(
      with([](auto& b) { b.add_raw("k", std::string("\x09\0\0\0\x09\0\0\0\x01\0\0\0\0\0\0\0", 16)); }),
      HasSubstr("arrays of arrays"));
  EXPECT_THAT(with([](auto& b) { b.add_raw("k", std::string("\x63\0\0\0", 4)); }),
              HasSubstr("value type 99"));
  EXPECT_THAT(with([](auto& b) { b.add_raw("k", std::string("\x07\0\0\0\x02", 5)); }),
              HasSubstr("neither true"));
}

TEST(Gguf, NamesTwiceAreRefused) {
  EXPECT_THAT(gguf_refusal(GgufBuilder().add("k", true).add("k", true).build()),
              HasSubstr("k: the key is there twice"));
  EXPECT_THAT(gguf_refusal(GgufBuilder().add_floats("x", {1}, {1}).add_floats("x", {1}, {1}).build()),
              HasSubstr("x: the tensor is there twice"));
  EXPECT_THAT(gguf_refusal(GgufBuilder().add("", true).build()), HasSubstr("a name of 0 bytes"));
  EXPECT_THAT(gguf_refusal(GgufBuilder().add("\xFF", true).build()), HasSubstr("not UTF-8"));
}

TEST(Gguf, TensorsMustLieInTheFileAlignedAndApart) {
  const auto with = [](uint32_t type, const std::vector<uint64_t>& shape, int64_t offset) {
    GgufBuilder builder;
    builder.add_floats("a", {16}, std::vector<float>(16));
    builder.add_tensor("b", type, shape, std::string(64, '\0'), offset);
    return gguf_refusal(builder.build());
  };
  EXPECT_EQ(with(0, {16}, -1), "accepted");
  EXPECT_THAT(with(0, {16}, 65), HasSubstr("b: offset 65 is not a multiple of 32"));
  EXPECT_THAT(with(0, {16}, 32), HasSubstr("b: offset 32 lies inside"));
  EXPECT_THAT(with(0, {8}, 128), HasSubstr("incomplete"));
  EXPECT_THAT(with(0, {8}, INT64_MAX - 31), HasSubstr("incomplete"));
  EXPECT_THAT(with(0, {uint64_t{1} << 32, uint64_t{1} << 32}, -1), HasSubstr("no number of bytes"));
  EXPECT_THAT(with(0, {uint64_t{1} << 62}, -1), HasSubstr("no number of bytes"));
  EXPECT_THAT(with(2, {33}, -1), HasSubstr("rows of 33 do not fill blocks of 32 (Q4_0)"));
  EXPECT_THAT(with(99, {1}, -1), HasSubstr("tensor type 99 is not known; F32, F16, BF16, Q4_0"));
  EXPECT_THAT(with(0, {1, 1, 1, 1, 1}, -1), HasSubstr("5 dimensions"));
}

TEST(Gguf, QuantizedRowsMustBeWholeBlocksThatAreThere) {
  for (const GgmlType type :
       {GgmlType::kQ5_0, GgmlType::kQ5_1, GgmlType::kQ2_K, GgmlType::kQ3_K, GgmlType::kQ4_K, GgmlType::kQ5_K,
        GgmlType::kQ6_K, GgmlType::kIQ4_NL, GgmlType::kIQ4_XS}) {
    const GgmlTypeInfo& info = ggml_type_info(type);
    // Two rows of `row` elements, for which the file has `bytes`.
    const auto with = [&](uint64_t row, size_t bytes) {
      return gguf_refusal(
          GgufBuilder()
              .add_tensor("t", static_cast<uint32_t>(type), {row, 2}, std::string(bytes, '\x01'))
              .build());
    };
    EXPECT_EQ(with(info.block_elements, 2 * info.block_bytes), "accepted") << info.name;
    EXPECT_THAT(with(info.block_elements, 2 * info.block_bytes - 1), HasSubstr("t: ")) << info.name;
    EXPECT_THAT(with(info.block_elements, 2 * info.block_bytes - 1), HasSubstr("the file has only"))
        << info.name;
    // Whole blocks in all, but not in each row.
    EXPECT_THAT(with(info.block_elements / 2, info.block_bytes), HasSubstr("do not fill blocks of"))
        << info.name;
    const uint64_t largest = UINT64_MAX - UINT64_MAX % info.block_elements;
    EXPECT_THAT(with(largest, info.block_bytes), HasSubstr("no number of bytes")) << info.name;
  }
}

TEST(Gguf, AlignmentComesFromTheFile) {
  EXPECT_EQ(gguf_refusal(GgufBuilder().add<uint32_t>("general.alignment", 32).build()), "accepted");
  EXPECT_THAT(gguf_refusal(GgufBuilder().add<uint32_t>("general.alignment", 0).build()),
              HasSubstr("power of two"));
  EXPECT_THAT(gguf_refusal(GgufBuilder().add<uint32_t>("general.alignment", 48).build()),
              HasSubstr("power of two"));
  EXPECT_THAT(gguf_refusal(GgufBuilder().add<uint64_t>("general.alignment", uint64_t{1} << 62).build()),
              HasSubstr("power of two"));
}

RC_GTEST_PROP(GgufProperty, DamagedFilesAreRefusedOrConsistent, ()) {
  GgufBuilder builder;
  builder.add<std::string>("s", "text")
      .add_list<uint32_t>("l", {1, 2})
      .add<uint32_t>("general.alignment", 32);
  builder.add_floats("x", {2}, {1, 2}).add_tensor("y", 2, {32, 1}, std::string(18, 'q'));
  std::string file = builder.build();
  const auto edits =
      *rc::gen::resize(4, rc::gen::container<std::vector<std::pair<size_t, char>>>(rc::gen::pair(
                              rc::gen::inRange<size_t>(8, file.size()), rc::gen::arbitrary<char>())));
  for (const auto& [position, value] : edits) file[position] = value;
  const auto header = parse_bytes(file);
  if (!header) {
    RC_ASSERT(!header.error().what.empty());
    return;
  }
  for (const auto& tensor : header->tensors) {
    RC_ASSERT(tensor.second.begin + tensor.second.bytes <= file.size());
  }
}

// --- blocks ---

std::vector<float> dequantize(GgmlType type, const std::string& blocks) {
  const GgmlTypeInfo& info = ggml_type_info(type);
  std::vector<float> values(blocks.size() / info.block_bytes * info.block_elements);
  find_dequantizer(type)(std::as_bytes(std::span(blocks)), values.data());
  return values;
}

// float16 bits: 0.5 and -2.
const std::string kHalf = {'\x00', '\x38'};
const std::string kMinusTwo = {'\x00', '\xC0'};

// Codes 0..15 in the low halves, all 15 in the high ones.
std::string ramp() {
  std::string codes;
  for (int i = 0; i < 16; ++i) codes += static_cast<char>(0xF0 | i);
  return codes;
}

TEST(GgufQuants, Q4_0IsCodeMinusEightTimesScale) {
  const auto values = dequantize(GgmlType::kQ4_0, kHalf + ramp() + kMinusTwo + ramp());
  ASSERT_EQ(values.size(), 64u);
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(values[i], 0.5f * (static_cast<float>(i) - 8));
    EXPECT_EQ(values[16 + i], 3.5f);
    EXPECT_EQ(values[48 + i], -14.0f);
  }
}

TEST(GgufQuants, Q4_1IsCodeTimesScalePlusMinimum) {
  const auto values = dequantize(GgmlType::kQ4_1, kHalf + kMinusTwo + ramp());
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(values[i], 0.5f * static_cast<float>(i) - 2);
    EXPECT_EQ(values[16 + i], 5.5f);
  }
}

TEST(GgufQuants, Q5HasAFifthBitPerElement) {
  // Bits of elements 0 and 31.
  const std::string high = {'\x01', '\0', '\0', '\x80'};
  const auto q5_0 = dequantize(GgmlType::kQ5_0, kHalf + high + ramp());
  EXPECT_EQ(q5_0[0], 0.5f * (16 - 16));
  EXPECT_EQ(q5_0[1], 0.5f * (1 - 16));
  EXPECT_EQ(q5_0[30], 0.5f * (15 - 16));
  EXPECT_EQ(q5_0[31], 0.5f * (31 - 16));
  const auto q5_1 = dequantize(GgmlType::kQ5_1, kHalf + kMinusTwo + high + ramp());
  EXPECT_EQ(q5_1[0], 0.5f * 16 - 2);
  EXPECT_EQ(q5_1[31], 0.5f * 31 - 2);
}

TEST(GgufQuants, Q8_0IsSignedCodeTimesScale) {
  std::string codes(32, '\0');
  codes[0] = '\x80';
  codes[31] = '\x7F';
  const auto values = dequantize(GgmlType::kQ8_0, kHalf + codes);
  EXPECT_EQ(values[0], -64.0f);
  EXPECT_EQ(values[1], 0.0f);
  EXPECT_EQ(values[31], 63.5f);
}

TEST(GgufQuants, Q6_KTakesBitsFromBothPlanes) {
  std::string low(128, '\0'), high(64, '\0'), scales(16, '\x01');
  low[3] = '\x5A';            // element 3: 10, element 67: 5
  low[64 + 32 + 1] = '\x0C';  // element 128 + 33: 12
  high[3] = '\x21';           // element 3: 1 << 4; element 67: 2 << 4
  high[32 + 1] = '\x0C';      // element 161: 3 << 4
  scales[0] = '\xFE';         // -2, for elements 0 to 15
  const auto values = dequantize(GgmlType::kQ6_K, low + high + scales + kHalf);
  ASSERT_EQ(values.size(), 256u);
  EXPECT_EQ(values[0], 0.5f * -2 * -32);
  EXPECT_EQ(values[3], 0.5f * -2 * (26 - 32));
  EXPECT_EQ(values[67], 0.5f * (37 - 32));
  EXPECT_EQ(values[161], 0.5f * (60 - 32));
  EXPECT_EQ(values[255], 0.5f * -32);
}

TEST(GgufQuants, FloatsAreTakenAsTheyAre) {
  EXPECT_THAT(dequantize(GgmlType::kF16, kHalf + kMinusTwo), ElementsAre(0.5f, -2.0f));
  EXPECT_THAT(dequantize(GgmlType::kBF16, {'\x80', '\x3F', '\x00', '\xC0'}), ElementsAre(1.0f, -2.0f));
  EXPECT_THAT(dequantize(GgmlType::kF32, {'\0', '\0', '\x80', '\x3F'}), ElementsAre(1.0f));
}

}  // namespace
}  // namespace nibble
