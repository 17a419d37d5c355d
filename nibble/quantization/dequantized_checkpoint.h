#ifndef NIBBLE_QUANTIZATION_DEQUANTIZED_CHECKPOINT_H_
#define NIBBLE_QUANTIZATION_DEQUANTIZED_CHECKPOINT_H_

// The counterpart of quantize_on_the_fly(): a quantized checkpoint seen as the float one that its codes
// stand for.

#include <memory>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/config/quantization_config.h"

namespace nibble {

// Modules stored as codes show a "weight" in the dtype that the original library dequantizes to; it is
// decoded when it is asked for. Everything else stays as it is.
Expected<std::shared_ptr<const Checkpoint>> dequantize_on_the_fly(
    std::shared_ptr<const Checkpoint> checkpoint, const QuantizationConfig& config);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_DEQUANTIZED_CHECKPOINT_H_
