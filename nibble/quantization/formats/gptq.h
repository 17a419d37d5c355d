#ifndef NIBBLE_QUANTIZATION_FORMATS_GPTQ_H_
#define NIBBLE_QUANTIZATION_FORMATS_GPTQ_H_

// GPTQ checkpoints: docs/formats/gptq.md.

#include <optional>

#include "nibble/config/quantization_config.h"
#include "nibble/quantization/formats/formats.h"
#include "nibble/quantization/formats/gptq_packing.h"
#include "nibble/quantization/formats/module_tensors.h"

namespace nibble {

// What `dynamic` and the rest of the config say about one module.
struct GptqParameters {
  int bits = 4;
  int64_t group_size = 128;  // -1: all inputs
  bool sym = true;
  bool desc_act = false;
  bool static_groups = false;
};
Expected<GptqParameters> gptq_parameters(const GPTQConfig& config, std::string_view module);

// How qzeros hold the zero points.
enum class GptqZeros {
  kMinusOneField,  // zero - 1 in each field, modulo 2^bits
  kMinusOneWord,   // GPTQModel, 2, 4 and 8 bits: ones subtracted from the whole word, with borrows
  kTrue,           // gptq_v2, gptq_p
};

// qzeros [num_groups, words] -> zero points [num_groups, out_features].
std::vector<float> gptq_zeros(std::vector<uint32_t> qzeros, size_t num_groups, size_t out_features,
                              const GptqPacking& packing, GptqZeros convention);

Expected<DecodedModule> decode_gptq(const ModuleTensors& tensors, const GPTQConfig& config,
                                    const std::optional<LinearShape>& shape, CodeStorage storage);
Expected<ModuleSummary> summarize_gptq(const ModuleTensors& tensors, const GPTQConfig& config);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FORMATS_GPTQ_H_
