#include "nibble/nn/int8_weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "nibble/base/check.h"
#include "nibble/quantization/float_blocks.h"

namespace nibble {
namespace {

// Codes and scales of one row; false where a value is not finite.
bool quantize_row(const std::vector<float>& row, size_t o, QuantizedWeight& result) {
  uint8_t* const codes = result.codes.data() + o * row.size();
  const size_t whole = row.size() / kInt8WeightGroup * kInt8WeightGroup;
  std::vector<float> magnitudes(result.num_groups);
  block_magnitudes(std::span(row).first(whole), kInt8WeightGroup, magnitudes.data());
  if (whole < row.size()) magnitudes.back() = largest_magnitude(std::span(row).subspan(whole));
  for (size_t g = 0; g < result.num_groups; ++g) {
    const size_t begin = g * kInt8WeightGroup;
    const size_t end = std::min(begin + kInt8WeightGroup, row.size());
    const float largest = magnitudes[g];
    if (!std::isfinite(largest)) return false;
    const float scale = largest / 127.f;
    // A scale too small to divide by stands for a group of zeros.
    const float inverse = scale >= 1e-30f ? 1.f / scale : 0.f;
    scale_and_round(std::span(row).subspan(begin, end - begin), inverse,
                    reinterpret_cast<int8_t*>(codes + begin));
    result.scales[g * result.out_features + o] = inverse == 0.f ? 0.f : scale;
  }
  // -127..127 -> 1..255. Eight at a time: of an unknown number the compiler makes no vectors.
  size_t i = 0;
  for (uint64_t eight; i + sizeof(eight) <= row.size(); i += sizeof(eight)) {
    std::memcpy(&eight, codes + i, sizeof(eight));
    eight ^= 0x8080808080808080;
    std::memcpy(codes + i, &eight, sizeof(eight));
  }
  for (; i < row.size(); ++i) codes[i] ^= 0x80;
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
      load_floats(weight, o * row.size(), row.size(), row.data());
      if (!quantize_row(row, o, result)) finite = false;
    }
  });
  if (!finite) return std::nullopt;
  return result;
}

}  // namespace nibble
