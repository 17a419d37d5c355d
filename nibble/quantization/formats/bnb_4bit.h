#ifndef NIBBLE_QUANTIZATION_FORMATS_BNB_4BIT_H_
#define NIBBLE_QUANTIZATION_FORMATS_BNB_4BIT_H_

// bitsandbytes NF4 and FP4 checkpoints: docs/formats/bitsandbytes.md.

#include <optional>
#include <string>
#include <string_view>

#include "nibble/quantization/formats/formats.h"
#include "nibble/quantization/formats/module_tensors.h"

namespace nibble {

inline constexpr size_t kBnbBlocksizes[] = {32, 64, 128, 256, 512, 1024, 2048, 4096};
inline constexpr size_t kNestedBlocksize = 256;  // the only one that the original writes
inline constexpr std::string_view kQuantStatePrefix = "weight.quant_state.bitsandbytes__";

// The JSON in the tensor P.weight.quant_state.bitsandbytes__nf4 or __fp4.
struct BnbQuantState {
  std::string quant_type = "nf4";  // nf4, fp4
  size_t blocksize = 64;
  DType dtype = DType::kF16;  // of the weight before quantization
  size_t out_features = 0;
  size_t in_features = 0;
  bool nested = false;
  size_t nested_blocksize = kNestedBlocksize;
  float nested_offset = 0.f;

  bool operator==(const BnbQuantState&) const = default;
};

// The text as Python's json.dumps writes it, byte for byte.
std::string to_text(const BnbQuantState& state);
// Any key order and white space; unknown, missing or repeated keys are errors, as in the original.
Expected<BnbQuantState> parse_quant_state(std::string_view text);

Expected<DecodedModule> decode_bnb_4bit(const ModuleTensors& tensors, const std::optional<LinearShape>& shape,
                                        CodeStorage storage);
Expected<ModuleSummary> summarize_bnb_4bit(const ModuleTensors& tensors);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FORMATS_BNB_4BIT_H_
