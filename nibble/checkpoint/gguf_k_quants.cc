#include "nibble/checkpoint/gguf_k_quants.h"

#include <cstdint>

#include "nibble/base/float16.h"
#include "nibble/checkpoint/gguf_blocks.h"

namespace nibble {
namespace {

// The layouts of ggml-common.h. A block has float16 scales of its own, and small integer scales of
// its groups of 16 or 32 elements. Where codes have few bits, one byte serves several groups: the
// 2-bit codes of lane l (0 to 31) of the four "quarters" (32 elements each) of a half lie in byte l
// of that half; the 4-bit codes of two neighbouring groups of 32 lie in the halves of 32 bytes.

constexpr size_t kElements = 256;

// Quarter (0 to 3) of half (0 or 1), and the place in it, of an element.
struct Place {
  explicit Place(size_t element) : half(element / 128), quarter(element % 128 / 32), lane(element % 32) {}
  size_t half, quarter, lane;
};

int two_bits(const uint8_t* codes, Place at) {
  return codes[at.half * 32 + at.lane] >> (at.quarter * 2) & 0x03;
}

// Group g has its scale in the low half of scales[g], and that of its minimum in the high half.
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t codes[64];
  uint16_t d;
  uint16_t min;
};
static_assert(sizeof(BlockQ2_K) == 84);

void expand_q2_k(const BlockQ2_K& block, float* values) {
  const float d = fp16_to_float(block.d);
  const float min = fp16_to_float(block.min);
  for (size_t group = 0; group < 16; ++group) {
    const float group_scale = d * static_cast<float>(block.scales[group] & 0x0F);
    const float group_min = min * static_cast<float>(block.scales[group] >> 4);
    for (size_t i = group * 16; i < group * 16 + 16; ++i) {
      values[i] = group_scale * static_cast<float>(two_bits(block.codes, Place(i))) - group_min;
    }
  }
}

// Bit (half * 4 + quarter) of high[lane] is the third bit of an element: set for codes 0 to 3, clear
// for -4 to -1. Scales have 6 bits: the low four of groups 0 to 7 and 8 to 15 in the halves of the
// first 8 bytes, the upper two of group g in bits 2 * (g / 4) of byte 8 + g % 4; 32 stands for 0.
struct BlockQ3_K {
  uint8_t high[32];
  uint8_t codes[64];
  uint8_t scales[12];
  uint16_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

void expand_q3_k(const BlockQ3_K& block, float* values) {
  const float d = fp16_to_float(block.d);
  for (size_t group = 0; group < 16; ++group) {
    const int low = block.scales[group % 8] >> (group / 8 * 4) & 0x0F;
    const int high = block.scales[8 + group % 4] >> (group / 4 * 2) & 0x03;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    for (size_t i = group * 16; i < group * 16 + 16; ++i) {
      const Place at(i);
      const bool positive = (block.high[at.lane] >> (at.half * 4 + at.quarter) & 1) != 0;
      values[i] = scale * static_cast<float>(two_bits(block.codes, at) - (positive ? 0 : 4));
    }
  }
}

// The scale and the minimum of a group of 32, 6 bits each. Those of groups 0 to 3 fill the low six bits
// of bytes 0 to 3 and 4 to 7; those of groups 4 to 7 have their low four bits in the low and high
// halves of bytes 8 to 11, and their upper two above the six bits of the group four before.
struct ScaleAndMin {
  int scale, min;
};

ScaleAndMin group_scale(const uint8_t (&packed)[12], size_t group) {
  if (group < 4) return {packed[group] & 0x3F, packed[group + 4] & 0x3F};
  return {(packed[group + 4] & 0x0F) | packed[group - 4] >> 6 << 4,
          packed[group + 4] >> 4 | packed[group] >> 6 << 4};
}

// Eight groups of 32: scale * code - offset.
template <class Block, int (*code_of)(const Block& block, size_t group, size_t lane)>
void expand_groups(const Block& block, float* values) {
  const float d = fp16_to_float(block.d);
  const float min = fp16_to_float(block.min);
  for (size_t group = 0; group < 8; ++group) {
    const ScaleAndMin packed = group_scale(block.scales, group);
    const float scale = d * static_cast<float>(packed.scale);
    const float offset = min * static_cast<float>(packed.min);
    for (size_t lane = 0; lane < 32; ++lane) {
      values[group * 32 + lane] = scale * static_cast<float>(code_of(block, group, lane)) - offset;
    }
  }
}

struct BlockQ4_K {
  uint16_t d;
  uint16_t min;
  uint8_t scales[12];
  uint8_t codes[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

template <class Block>
int low_code(const Block& block, size_t group, size_t lane) {
  return block.codes[group / 2 * 32 + lane] >> (group % 2 * 4) & 0x0F;
}

// Bit g of high[lane] is the fifth bit of lane `lane` of group g.
struct BlockQ5_K {
  uint16_t d;
  uint16_t min;
  uint8_t scales[12];
  uint8_t high[32];
  uint8_t codes[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

int five_bit_code(const BlockQ5_K& block, size_t group, size_t lane) {
  return low_code(block, group, lane) | (block.high[lane] >> group & 1) << 4;
}

// 6-bit codes, their low four bits in `low` and the upper two in `high`. A half of 128 elements has
// 64 bytes of `low`; its quarters 0 and 1 take the low halves of these, 2 and 3 the high ones.
struct BlockQ6_K {
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

void expand_q6_k(const BlockQ6_K& block, float* values) {
  const float d = fp16_to_float(block.d);
  for (size_t i = 0; i < kElements; ++i) {
    const Place at(i);
    const int low = block.low[at.half * 64 + at.quarter % 2 * 32 + at.lane] >> (at.quarter / 2 * 4) & 0x0F;
    const float scale = d * static_cast<float>(block.scales[i / 16]);
    values[i] = scale * static_cast<float>((low | two_bits(block.high, at) << 4) - 32);
  }
}

// Groups of 32 as in IQ4_NL: byte j holds element j in its low and j + 16 in its high half. The scale of a
// group has its low four bits in a half of low_scales, the upper two in high_scales; 32 stands for 0.
struct BlockIQ4_XS {
  uint16_t d;
  uint16_t high_scales;
  uint8_t low_scales[4];
  uint8_t codes[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

void expand_iq4_xs(const BlockIQ4_XS& block, float* values) {
  const float d = fp16_to_float(block.d);
  for (size_t group = 0; group < 8; ++group) {
    const int low = block.low_scales[group / 2] >> (group % 2 * 4) & 0x0F;
    const int high = block.high_scales >> (group * 2) & 0x03;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    for (size_t j = 0; j < 16; ++j) {
      const uint8_t codes = block.codes[group * 16 + j];
      values[group * 32 + j] = scale * static_cast<float>(kIq4Values[codes & 0x0F]);
      values[group * 32 + j + 16] = scale * static_cast<float>(kIq4Values[codes >> 4]);
    }
  }
}

}  // namespace

void dequantize_q2_k(std::span<const std::byte> blocks, float* values) {
  for_each_block<BlockQ2_K, kElements, expand_q2_k>(blocks, values);
}
void dequantize_q3_k(std::span<const std::byte> blocks, float* values) {
  for_each_block<BlockQ3_K, kElements, expand_q3_k>(blocks, values);
}
void dequantize_q4_k(std::span<const std::byte> blocks, float* values) {
  for_each_block<BlockQ4_K, kElements, expand_groups<BlockQ4_K, low_code<BlockQ4_K>>>(blocks, values);
}
void dequantize_q5_k(std::span<const std::byte> blocks, float* values) {
  for_each_block<BlockQ5_K, kElements, expand_groups<BlockQ5_K, five_bit_code>>(blocks, values);
}
void dequantize_q6_k(std::span<const std::byte> blocks, float* values) {
  for_each_block<BlockQ6_K, kElements, expand_q6_k>(blocks, values);
}
void dequantize_iq4_xs(std::span<const std::byte> blocks, float* values) {
  for_each_block<BlockIQ4_XS, kElements, expand_iq4_xs>(blocks, values);
}

}  // namespace nibble
