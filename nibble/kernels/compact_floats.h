#ifndef NIBBLE_KERNELS_COMPACT_FLOATS_H_
#define NIBBLE_KERNELS_COMPACT_FLOATS_H_

// Scales and zero points as small as they go without losing a bit: files store most of them in 16
// bits, and reading twice as much for each group would cost 6 % of the speed of a 4-bit weight.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nibble/base/float16.h"

namespace nibble::kernels {

// Immutable.
class CompactFloats {
 public:
  CompactFloats() = default;
  explicit CompactFloats(std::span<const float> values) {
    const bool half = std::all_of(values.begin(), values.end(), [](float v) {
      return std::bit_cast<uint32_t>(fp16_to_float(float_to_fp16(v))) == std::bit_cast<uint32_t>(v);
    });
    const bool bfloat = std::all_of(values.begin(), values.end(),
                                    [](float v) { return (std::bit_cast<uint32_t>(v) & 0xFFFFu) == 0; });
    if (half || bfloat) {
      kind_ = half ? Kind::kHalf : Kind::kBFloat;
      short_.reserve(values.size());
      for (const float v : values) short_.push_back(half ? float_to_fp16(v) : float_to_bf16(v));
    } else {
      full_.assign(values.begin(), values.end());
    }
  }

  float operator[](size_t i) const {
    return kind_ == Kind::kHalf     ? fp16_to_float(short_[i])
           : kind_ == Kind::kBFloat ? bf16_to_float(short_[i])
                                    : full_[i];
  }
  size_t bytes() const { return short_.size() * sizeof(uint16_t) + full_.size() * sizeof(float); }

 private:
  enum class Kind { kFloat, kHalf, kBFloat };
  Kind kind_ = Kind::kFloat;
  std::vector<uint16_t> short_;
  std::vector<float> full_;
};

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_COMPACT_FLOATS_H_
