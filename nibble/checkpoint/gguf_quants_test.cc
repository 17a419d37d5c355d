// Every block format against gguf.quants.dequantize of the Python package gguf (and ggml, which makes the
// same floats of these blocks), bit for bit: all round each product and sum in the same order.

#include "nibble/checkpoint/gguf_quants.h"

#include <bit>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/checkpoint/safetensors.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

class GgufBlocks : public testing::TestWithParam<GgmlType> {};

TEST_P(GgufBlocks, EqualTheOriginalLibraryInEveryBit) {
  const auto goldens = SafetensorsFile::open(test::data_folder() / "goldens" / "gguf-blocks.safetensors");
  ASSERT_TRUE(goldens.has_value()) << to_string(goldens.error());
  const GgmlTypeInfo& info = ggml_type_info(GetParam());
  const auto blocks = goldens->tensor(std::string(info.name) + ".blocks");
  const auto expected = goldens->tensor(std::string(info.name) + ".values");
  ASSERT_TRUE(blocks.has_value() && expected.has_value());
  const auto values = copy_elements<float>(*expected);
  ASSERT_EQ(values.size(), blocks->bytes.size() / info.block_bytes * info.block_elements);

  const DequantizeBlocks dequantize = find_dequantizer(GetParam());
  ASSERT_NE(dequantize, nullptr);
  std::vector<float> ours(values.size());
  dequantize(blocks->bytes, ours.data());
  for (size_t i = 0; i < ours.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(ours[i]), std::bit_cast<uint32_t>(values[i]))
        << "element " << i << ": " << ours[i] << " instead of " << values[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Types, GgufBlocks,
                         testing::Values(GgmlType::kBF16, GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0,
                                         GgmlType::kQ5_1, GgmlType::kQ8_0, GgmlType::kQ2_K, GgmlType::kQ3_K,
                                         GgmlType::kQ4_K, GgmlType::kQ5_K, GgmlType::kQ6_K, GgmlType::kIQ4_NL,
                                         GgmlType::kIQ4_XS),
                         [](const auto& type) { return std::string(ggml_type_info(type.param).name); });

TEST(GgufQuants, MessagesNameEveryTypeThatCanBeRead) {
  EXPECT_EQ(dequantizable_types(),
            "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS");
  for (const GgmlType type : {GgmlType::kIQ1_S, GgmlType::kMXFP4, GgmlType::kI32}) {
    EXPECT_EQ(find_dequantizer(type), nullptr);
  }
}

}  // namespace
}  // namespace nibble
