#include "nibble/nn/int8_weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "nibble/base/check.h"
#include "nibble/base/float16.h"

namespace nibble {
namespace {

void load_row(const Tensor& weight, size_t row, std::vector<float>& out) {
  const size_t element = dtype_bits(weight.dtype) / 8;
  const std::byte* const bytes = weight.bytes.data() + row * out.size() * element;
  if (weight.dtype == DType::kF32) {
    std::memcpy(out.data(), bytes, out.size() * element);
    return;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes + i * element, element);
    out[i] = weight.dtype == DType::kF16 ? fp16_to_float(bits) : bf16_to_float(bits);
  }
}

// Codes and scales of one row; false where a value is not finite.
bool quantize_row(const std::vector<float>& row, size_t o, QuantizedWeight& result) {
  uint8_t* const codes = result.codes.data() + o * row.size();
  for (size_t g = 0; g < result.num_groups; ++g) {
    const size_t begin = g * kInt8WeightGroup;
    const size_t end = std::min(begin + kInt8WeightGroup, row.size());
    float largest = 0.f;
    bool finite = true;
    for (size_t i = begin; i < end; ++i) {
      finite = finite && std::isfinite(row[i]);
      largest = std::max(largest, std::fabs(row[i]));
    }
    if (!finite) return false;
    const float scale = largest / 127.f;
    // A scale too small to divide by stands for a group of zeros.
    const float inverse = scale >= 1e-30f ? 1.f / scale : 0.f;
    for (size_t i = begin; i < end; ++i) {
      codes[i] = static_cast<uint8_t>(128 + static_cast<int>(std::nearbyintf(row[i] * inverse)));
    }
    result.scales[g * result.out_features + o] = inverse == 0.f ? 0.f : scale;
  }
  return true;
}

}  // namespace

std::optional<QuantizedWeight> to_int8(const Tensor& weight, ThreadPool& pool) {
  NIBBLE_CHECK(weight.shape.size() == 2);
  QuantizedWeight result;
  result.bits = 8;
  result.out_features = weight.shape[0];
  result.in_features = weight.shape[1];
  result.group_size = kInt8WeightGroup;
  result.num_groups = (result.in_features + kInt8WeightGroup - 1) / kInt8WeightGroup;
  result.dtype = weight.dtype;
  result.codes.resize(result.out_features * result.in_features);
  result.scales.resize(result.num_groups * result.out_features);
  result.zeros.assign(result.scales.size(), 128.f);
  std::atomic<bool> finite = true;
  pool.parallel_for(result.out_features, 64, [&](size_t begin, size_t end, size_t) {
    std::vector<float> row(result.in_features);
    for (size_t o = begin; o < end; ++o) {
      load_row(weight, o, row);
      if (!quantize_row(row, o, result)) finite = false;
    }
  });
  if (!finite) return std::nullopt;
  return result;
}

}  // namespace nibble
