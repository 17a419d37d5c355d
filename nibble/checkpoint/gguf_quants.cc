#include "nibble/checkpoint/gguf_quants.h"

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "nibble/base/float16.h"
#include "nibble/checkpoint/gguf_blocks.h"
#include "nibble/checkpoint/gguf_k_quants.h"

namespace nibble {
namespace {

// The layouts of ggml-common.h. All scales are float16 bits; products and sums are rounded to
// float32 one by one, as ggml's own expansion does.

void expand_f32(const float& element, float* value) { *value = element; }
void expand_f16(const uint16_t& element, float* value) { *value = fp16_to_float(element); }
void expand_bf16(const uint16_t& element, float* value) { *value = bf16_to_float(element); }

// In the 4- and 5-bit blocks of 32, byte j holds element j in its low and j + 16 in its high half.
constexpr size_t kHalf = 16;

struct BlockQ4_0 {
  uint16_t d;
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

void expand_q4_0(const BlockQ4_0& block, float* values) {
  const float d = fp16_to_float(block.d);
  for (size_t j = 0; j < kHalf; ++j) {
    values[j] = d * static_cast<float>((block.codes[j] & 0x0F) - 8);
    values[j + kHalf] = d * static_cast<float>((block.codes[j] >> 4) - 8);
  }
}

struct BlockQ4_1 {
  uint16_t d;
  uint16_t min;
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

void expand_q4_1(const BlockQ4_1& block, float* values) {
  const float d = fp16_to_float(block.d);
  const float min = fp16_to_float(block.min);
  for (size_t j = 0; j < kHalf; ++j) {
    values[j] = d * static_cast<float>(block.codes[j] & 0x0F) + min;
    values[j + kHalf] = d * static_cast<float>(block.codes[j] >> 4) + min;
  }
}

// Bit j of high_bits is the fifth bit of element j.
int five_bits(int nibble, uint32_t high_bits, size_t element) {
  return nibble | static_cast<int>((high_bits >> element) & 1u) << 4;
}

struct BlockQ5_0 {
  uint16_t d;
  uint8_t high_bits[4];
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

void expand_q5_0(const BlockQ5_0& block, float* values) {
  const float d = fp16_to_float(block.d);
  const auto high = std::bit_cast<uint32_t>(block.high_bits);
  for (size_t j = 0; j < kHalf; ++j) {
    values[j] = d * static_cast<float>(five_bits(block.codes[j] & 0x0F, high, j) - 16);
    values[j + kHalf] = d * static_cast<float>(five_bits(block.codes[j] >> 4, high, j + kHalf) - 16);
  }
}

struct BlockQ5_1 {
  uint16_t d;
  uint16_t min;
  uint8_t high_bits[4];
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

void expand_q5_1(const BlockQ5_1& block, float* values) {
  const float d = fp16_to_float(block.d);
  const float min = fp16_to_float(block.min);
  const auto high = std::bit_cast<uint32_t>(block.high_bits);
  for (size_t j = 0; j < kHalf; ++j) {
    values[j] = d * static_cast<float>(five_bits(block.codes[j] & 0x0F, high, j)) + min;
    values[j + kHalf] = d * static_cast<float>(five_bits(block.codes[j] >> 4, high, j + kHalf)) + min;
  }
}

struct BlockQ8_0 {
  uint16_t d;
  int8_t codes[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

void expand_q8_0(const BlockQ8_0& block, float* values) {
  const float d = fp16_to_float(block.d);
  for (size_t j = 0; j < 32; ++j) values[j] = d * static_cast<float>(block.codes[j]);
}

// Codes are numbers of a table, denser around zero.
struct BlockIQ4_NL {
  uint16_t d;
  uint8_t codes[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

void expand_iq4_nl(const BlockIQ4_NL& block, float* values) {
  const float d = fp16_to_float(block.d);
  for (size_t j = 0; j < kHalf; ++j) {
    values[j] = d * static_cast<float>(kIq4Values[block.codes[j] & 0x0F]);
    values[j + kHalf] = d * static_cast<float>(kIq4Values[block.codes[j] >> 4]);
  }
}

struct Row {
  GgmlType type;
  DequantizeBlocks dequantize;
};

constexpr std::array kRows = {
    Row{GgmlType::kF32, for_each_block<float, 1, expand_f32>},
    Row{GgmlType::kF16, for_each_block<uint16_t, 1, expand_f16>},
    Row{GgmlType::kBF16, for_each_block<uint16_t, 1, expand_bf16>},
    Row{GgmlType::kQ4_0, for_each_block<BlockQ4_0, 32, expand_q4_0>},
    Row{GgmlType::kQ4_1, for_each_block<BlockQ4_1, 32, expand_q4_1>},
    Row{GgmlType::kQ5_0, for_each_block<BlockQ5_0, 32, expand_q5_0>},
    Row{GgmlType::kQ5_1, for_each_block<BlockQ5_1, 32, expand_q5_1>},
    Row{GgmlType::kQ8_0, for_each_block<BlockQ8_0, 32, expand_q8_0>},
    Row{GgmlType::kQ2_K, dequantize_q2_k},
    Row{GgmlType::kQ3_K, dequantize_q3_k},
    Row{GgmlType::kQ4_K, dequantize_q4_k},
    Row{GgmlType::kQ5_K, dequantize_q5_k},
    Row{GgmlType::kQ6_K, dequantize_q6_k},
    Row{GgmlType::kIQ4_NL, for_each_block<BlockIQ4_NL, 32, expand_iq4_nl>},
    Row{GgmlType::kIQ4_XS, dequantize_iq4_xs},
};

}  // namespace

DequantizeBlocks find_dequantizer(GgmlType type) {
  for (const Row& row : kRows) {
    if (row.type == type) return row.dequantize;
  }
  return nullptr;
}

std::string dequantizable_types() {
  std::vector<std::string_view> names;
  for (const Row& row : kRows) names.push_back(ggml_type_info(row.type).name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace nibble
