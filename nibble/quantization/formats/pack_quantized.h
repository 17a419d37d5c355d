#ifndef NIBBLE_QUANTIZATION_FORMATS_PACK_QUANTIZED_H_
#define NIBBLE_QUANTIZATION_FORMATS_PACK_QUANTIZED_H_

// The layout "pack-quantized" of compressed-tensors, which llm-compressor writes and vLLM reads:
// docs/formats/compressed-tensors.md.

#include <map>
#include <optional>
#include <string>

#include "nibble/config/quantization_config.h"
#include "nibble/quantization/formats/formats.h"
#include "nibble/quantization/formats/module_tensors.h"

namespace nibble {

inline constexpr std::string_view kPackQuantized = "pack-quantized";

Expected<DecodedModule> decode_pack_quantized(const ModuleTensors& tensors,
                                              const CompressedTensorsConfig& config,
                                              const std::optional<LinearShape>& shape, CodeStorage storage);
Expected<ModuleSummary> summarize_pack_quantized(const ModuleTensors& tensors,
                                                 const CompressedTensorsConfig& config);

// The tensors by suffix, scales in the weight's own type. weight: kAffine with integral zeros and 2, 4 or 8
// bits, groups that fill the inputs. group: the one of config_groups that the module falls under; a
// symmetric one stores no zero points, one with actorder "group" stores g_idx. kInvalidArgument for what
// does not fit.
Expected<std::map<std::string, Tensor>> encode_pack_quantized(const QuantizedWeight& weight,
                                                              const CompressedTensorsGroup& group);

// Type and shape of these tensors, from sizes alone. kInvalidArgument as above.
Expected<std::map<std::string, TensorInfo>> pack_quantized_tensors(const CompressedTensorsGroup& group,
                                                                   size_t out_features, size_t in_features,
                                                                   DType scale_dtype);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FORMATS_PACK_QUANTIZED_H_
