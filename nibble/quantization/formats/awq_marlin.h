#ifndef NIBBLE_QUANTIZATION_FORMATS_AWQ_MARLIN_H_
#define NIBBLE_QUANTIZATION_FORMATS_AWQ_MARLIN_H_

// The order in which AutoAWQ's "marlin" version lays codes and scales for the tensor cores
// (docs/formats/awq.md). Zero points are always 8 and not stored.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace nibble {

inline constexpr size_t kMarlinInputs = 16;   // in_features is a multiple
inline constexpr size_t kMarlinOutputs = 64;  // out_features is a multiple

// qweight [in / 16, out * 2] -> codes [out_features, in_features].
void unpack_awq_marlin(const uint32_t* qweight, size_t out_features, size_t in_features, uint8_t* codes);

// Puts scales [num_groups, out_features] back into the order of the outputs.
std::vector<float> unpermute_marlin_scales(const std::vector<float>& scales, size_t num_groups,
                                           size_t out_features);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FORMATS_AWQ_MARLIN_H_
