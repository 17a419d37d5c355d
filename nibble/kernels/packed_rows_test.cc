#include "nibble/kernels/packed_rows.h"

#include <cstring>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/kernels/dequantize.h"
#include "nibble/kernels/test_weights.h"

namespace nibble::kernels {
namespace {

// For all rows at once and from odd starts: the float path must give the formula's own bits.
TEST(PackedRows, GiveTheBitsOfTheFormula) {
  ThreadPool pool(2);
  std::vector<WeightCase> cases = weight_cases();
  cases.insert(cases.end(), llm_int8_cases().begin(), llm_int8_cases().end());
  for (const WeightCase& c : cases) {
    const QuantizedWeight w = random_weight(c, 4);
    const std::vector<float> expected = all_weights(w);
    const PackedRows rows(w, pool);
    for (const CpuTarget target : supported_cpu_targets()) {
      SCOPED_TRACE(c.name() + " " + std::string(cpu_target_name(target)));
      std::vector<uint8_t> scratch(rows.scratch_bytes());
      for (const size_t begin : {size_t{0}, c.out_features / 2}) {
        std::vector<float> out((c.out_features - begin) * c.in_features);
        rows.dequantize(begin, c.out_features, out.data(), scratch.data(), target);
        for (size_t i = 0; i < out.size(); ++i) {
          const size_t column = i % c.in_features;
          const size_t input = rows.order().empty() ? column : rows.order()[column];
          const float wanted = expected[(begin + i / c.in_features) * c.in_features + input];
          ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(wanted)) << "element " << i;
        }
      }
    }
  }
}

TEST(PackedRows, KeepCodesPacked) {
  ThreadPool pool(1);
  const size_t weights = 64 * 1024;
  for (const auto& [bits, width] : {std::pair<int, size_t>{2, 2}, {3, 4}, {4, 4}, {5, 8}, {8, 8}}) {
    const PackedRows rows(random_weight({WeightFormula::kAffine, 64, 1024, bits, 128}, 1), pool);
    const size_t scales_and_zeros = weights / 128 * 2 * sizeof(uint16_t);
    EXPECT_EQ(rows.bytes(), weights * width / 8 + scales_and_zeros) << bits << " bits";
  }
}

TEST(Dequantize, LowBitsComeFirst) {
  for (const CpuTarget target : supported_cpu_targets()) {
    std::vector<uint8_t> packed(kPackedAlign);
    packed[0] = 0x21;
    packed[1] = 0x43;
    std::vector<uint8_t> codes(kUnpackedAlign);
    unpack_codes(packed.data(), 4, 4, codes.data(), target);
    EXPECT_EQ(std::vector<uint8_t>(codes.begin(), codes.begin() + 4), (std::vector<uint8_t>{1, 2, 3, 4}));
    packed[0] = 0b11'10'01'00;
    unpack_codes(packed.data(), 2, 4, codes.data(), target);
    EXPECT_EQ(std::vector<uint8_t>(codes.begin(), codes.begin() + 4), (std::vector<uint8_t>{0, 1, 2, 3}));
  }
}

// Rounding to half and bfloat16 by vector instructions against float16.h, on all magnitudes: ties,
// subnormals, overflow.
RC_GTEST_PROP(Dequantize, RoundsAsFloat16Does, ()) {
  const float scale = std::bit_cast<float>(*rc::gen::inRange<uint32_t>(0x30000000u, 0x48000000u));
  const float zero = static_cast<float>(*rc::gen::inRange(0, 17));
  std::vector<uint8_t> codes(16);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i);
  for (const CpuTarget target : supported_cpu_targets()) {
    for (const DType rounding : {DType::kF16, DType::kBF16, DType::kF32}) {
      std::vector<float> out(codes.size());
      dequantize_affine(codes.data(), codes.size(), scale, zero, rounding, out.data(), target);
      for (size_t i = 0; i < codes.size(); ++i) {
        RC_ASSERT(out[i] == rounded_to(scale * (static_cast<float>(i) - zero), rounding));
      }
    }
  }
}

}  // namespace
}  // namespace nibble::kernels
