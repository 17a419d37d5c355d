#ifndef NIBBLE_QUANTIZATION_FORMATS_AWQ_H_
#define NIBBLE_QUANTIZATION_FORMATS_AWQ_H_

// AWQ checkpoints in all layouts that AutoAWQ, llm-awq and GPTQModel write: docs/formats/awq.md.

#include <optional>

#include "nibble/config/quantization_config.h"
#include "nibble/quantization/formats/formats.h"
#include "nibble/quantization/formats/module_tensors.h"

namespace nibble {

enum class AwqLayout {
  kGemm,    // qweight I32 [in, out / 8]: versions gemm, exllama, ipex
  kGemv,    // qweight I32 [out, in / 8]
  kFast,    // qweight I16 [out / 4, in]: versions gemv_fast, llm-awq
  kMarlin,  // qweight I32 [in / 16, out * 2]
};

// Words of qweight -> codes [out_features, in_features]. Shapes as above.
void unpack_awq_gemm(const uint32_t* qweight, size_t out_features, size_t in_features, uint8_t* codes);
void unpack_awq_gemv(const uint32_t* qweight, size_t out_features, size_t in_features, uint8_t* codes);
void unpack_awq_fast(const uint16_t* qweight, size_t out_features, size_t in_features, uint8_t* codes);

// The way back; codes must be below 16, sizes as the shapes above say.
void pack_awq_gemm(const uint8_t* codes, size_t out_features, size_t in_features, uint32_t* qweight);
void pack_awq_gemv(const uint8_t* codes, size_t out_features, size_t in_features, uint32_t* qweight);
void pack_awq_fast(const uint8_t* codes, size_t out_features, size_t in_features, uint16_t* qweight);

Expected<DecodedModule> decode_awq(const ModuleTensors& tensors, const AwqConfig& config,
                                   const std::optional<LinearShape>& shape, CodeStorage storage);
Expected<ModuleSummary> summarize_awq(const ModuleTensors& tensors, const AwqConfig& config);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FORMATS_AWQ_H_
