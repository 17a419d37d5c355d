#ifndef NIBBLE_QUANTIZATION_FORMATS_FORMATS_H_
#define NIBBLE_QUANTIZATION_FORMATS_FORMATS_H_

// One door to all layouts on disk: GPTQ, AWQ, bitsandbytes and compressed-tensors tensors of a module become
// a QuantizedWeight. Layouts are told apart by key, shape and data, not by the config alone, and
// cross-checked with it (docs/formats/).

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/config/quantization_config.h"
#include "nibble/quantization/quantized_weight.h"

namespace nibble {

// The modules whose weights are stored as codes, by the names of the tensors (never by lists in the
// config), sorted: "model.layers.0.mlp.down_proj".
std::vector<std::string> quantized_modules(const Checkpoint& checkpoint);

struct LinearShape {
  size_t out_features = 0;
  size_t in_features = 0;
};

struct DecodedModule {
  QuantizedWeight weight;
  std::string format;  // "gptq", "gptq_v2", "gptq_p", "awq gemm", "bitsandbytes nf4", "pack-quantized"...:
                       // for -v and inspect
  std::vector<std::string> tensors;  // the tensors it was made of, full names (bias not included)
};

// kWords: as QuantizedWeight::words where the layout has 2 or 4 bits and lets them be had so without taking
// them apart; bytes elsewhere.
enum class CodeStorage { kBytes, kWords };

// Decodes one module. `shape`: what the architecture expects; without it the shape is inferred.
Expected<DecodedModule> decode_module(const Checkpoint& checkpoint, std::string_view module,
                                      const QuantizationConfig& config,
                                      const std::optional<LinearShape>& shape,
                                      CodeStorage storage = CodeStorage::kBytes);

// What can be said of a module from headers alone (for inspect): shape, bits, group size, bytes.
struct ModuleSummary {
  std::string format;
  size_t out_features = 0;
  size_t in_features = 0;
  int bits = 0;
  size_t group_size = 0;    // as stored; in_features for one group
  size_t stored_bytes = 0;  // all tensors of the module but the bias
};
Expected<ModuleSummary> summarize_module(const Checkpoint& checkpoint, std::string_view module,
                                         const QuantizationConfig& config);

// The names of the tensors that belong to the codes of `module`.
std::vector<std::string> tensors_of_module(const Checkpoint& checkpoint, std::string_view module);

// A whole weight in the dtype the original library dequantizes to (QuantizedWeight::dtype), or in
// `dtype` where given: float16(round(...)) as that library computes it, bit for bit.
Expected<Tensor> dequantize(const QuantizedWeight& weight, std::optional<DType> dtype);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FORMATS_FORMATS_H_
