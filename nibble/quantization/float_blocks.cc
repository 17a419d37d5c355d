#include "nibble/quantization/float_blocks.h"

#include <cstring>

#include "nibble/base/cpu_target.h"
#include "nibble/base/float16.h"
#include "nibble/base/simd_region.h"

#if NIBBLE_X86
#include <immintrin.h>
#endif

namespace nibble {
namespace {

struct FloatBlockKernels {
  size_t (*load_16_bits)(const std::byte* source, bool is_half, size_t count, float* out);
  float (*largest_magnitude)(const float* values, size_t count);
  void (*block_magnitudes)(const float* values, size_t count, size_t blocksize, float* largest);
  void (*scale_and_clamp)(float* values, size_t count, size_t blocksize, const float* factors);
  void (*pack_codes)(const float* values, size_t count, const CodeIntervals& intervals, uint8_t* packed);
  void (*scale_and_round)(const float* values, size_t count, float factor, int8_t* codes);
};

}  // namespace
}  // namespace nibble

// What every x86-64 has, and any other processor.
#define NIBBLE_BLOCKS_NAMESPACE blocks_baseline
#define NIBBLE_BLOCKS_LANES 4
#include "nibble/quantization/float_blocks-inl.h"
#undef NIBBLE_BLOCKS_NAMESPACE
#undef NIBBLE_BLOCKS_LANES

#if NIBBLE_X86
NIBBLE_BEGIN_AVX2
#define NIBBLE_BLOCKS_NAMESPACE blocks_avx2
#define NIBBLE_BLOCKS_LANES 8
#include "nibble/quantization/float_blocks-inl.h"
#undef NIBBLE_BLOCKS_NAMESPACE
#undef NIBBLE_BLOCKS_LANES
NIBBLE_END_TARGET

NIBBLE_BEGIN_AVX512
#define NIBBLE_BLOCKS_NAMESPACE blocks_avx512
#define NIBBLE_BLOCKS_LANES 16
#include "nibble/quantization/float_blocks-inl.h"
#undef NIBBLE_BLOCKS_NAMESPACE
#undef NIBBLE_BLOCKS_LANES
NIBBLE_END_TARGET
#endif

namespace nibble {
namespace {

const FloatBlockKernels& kernels_for(CpuTarget target) {
#if NIBBLE_X86
  if (target >= CpuTarget::kAvx512) return blocks_avx512::kKernels;
  if (target >= CpuTarget::kAvx2) return blocks_avx2::kKernels;
#endif
  static_cast<void>(target);
  return blocks_baseline::kKernels;
}

}  // namespace

void load_floats(const Tensor& tensor, size_t begin, size_t count, float* out, CpuTarget target) {
  if (tensor.dtype == DType::kF32) {
    std::memcpy(out, tensor.bytes.data() + begin * sizeof(float), count * sizeof(float));
    return;
  }
  const bool is_half = tensor.dtype == DType::kF16;
  const std::byte* const source = tensor.bytes.data() + begin * sizeof(uint16_t);
  for (size_t i = kernels_for(target).load_16_bits(source, is_half, count, out); i < count; ++i) {
    uint16_t half = 0;
    std::memcpy(&half, source + i * sizeof(half), sizeof(half));
    out[i] = is_half ? fp16_to_float(half) : bf16_to_float(half);
  }
}

float largest_magnitude(std::span<const float> values, CpuTarget target) {
  return kernels_for(target).largest_magnitude(values.data(), values.size());
}

void block_magnitudes(std::span<const float> values, size_t blocksize, float* largest, CpuTarget target) {
  kernels_for(target).block_magnitudes(values.data(), values.size(), blocksize, largest);
}

void scale_and_clamp(std::span<float> values, size_t blocksize, const float* factors, CpuTarget target) {
  kernels_for(target).scale_and_clamp(values.data(), values.size(), blocksize, factors);
}

void pack_codes(std::span<const float> values, const CodeIntervals& intervals, uint8_t* packed,
                CpuTarget target) {
  kernels_for(target).pack_codes(values.data(), values.size(), intervals, packed);
}

void scale_and_round(std::span<const float> values, float factor, int8_t* codes, CpuTarget target) {
  kernels_for(target).scale_and_round(values.data(), values.size(), factor, codes);
}

}  // namespace nibble
