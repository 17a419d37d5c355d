#ifndef NIBBLE_QUANTIZATION_FORMATS_BNB_INT8_H_
#define NIBBLE_QUANTIZATION_FORMATS_BNB_INT8_H_

// bitsandbytes LLM.int8 checkpoints: docs/formats/bitsandbytes.md.

#include <optional>

#include "nibble/quantization/formats/formats.h"
#include "nibble/quantization/formats/module_tensors.h"

namespace nibble {

Expected<DecodedModule> decode_bnb_int8(const ModuleTensors& tensors, const BitsAndBytesConfig& config,
                                        const std::optional<LinearShape>& shape);
Expected<ModuleSummary> summarize_bnb_int8(const ModuleTensors& tensors);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FORMATS_BNB_INT8_H_
