#ifndef NIBBLE_QUANTIZATION_BITSANDBYTES_QUANTIZE_H_
#define NIBBLE_QUANTIZATION_BITSANDBYTES_QUANTIZE_H_

// Pieces of the 4-bit quantizer that tell the shapes of its tensors before they exist.

#include <optional>
#include <vector>

#include "nibble/quantization/bitsandbytes.h"

namespace nibble {

// Of "weight", for `count` codes; nothing where their bytes do not fill whole elements.
std::optional<Shape> bnb_storage_shape(size_t count, DType quant_storage);

// The largest magnitude of each block, as stored without double quantization.
Expected<std::vector<float>> bnb_absmax(const Tensor& weight, size_t blocksize, ThreadPool& pool);

// What double quantization subtracts: the mean, in double, rounded to float.
float bnb_absmax_offset(const std::vector<float>& absmax);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BITSANDBYTES_QUANTIZE_H_
