#ifndef NIBBLE_CHECKPOINT_GGUF_QUANTS_H_
#define NIBBLE_CHECKPOINT_GGUF_QUANTS_H_

// From the stored blocks of a GGUF tensor to floats.

#include <cstddef>
#include <span>
#include <string>

#include "nibble/checkpoint/gguf.h"

namespace nibble {

// `blocks`: whole blocks; values: block_elements for each of them.
using DequantizeBlocks = void (*)(std::span<const std::byte> blocks, float* values);

// null for a type that is not implemented.
DequantizeBlocks find_dequantizer(GgmlType type);

// "F32, F16, BF16, Q4_0...": for messages.
std::string dequantizable_types();

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_GGUF_QUANTS_H_
