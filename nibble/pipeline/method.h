#ifndef NIBBLE_PIPELINE_METHOD_H_
#define NIBBLE_PIPELINE_METHOD_H_

// Ways to store a model, as people name them where several are compared: "float,nf4,gptq:3:64".

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/pipeline/quantize_options.h"

namespace nibble {

struct Method {
  std::string name;                              // "gptq:4", as it was written but for spelling
  std::optional<QuantizeOptions> quantize = {};  // nothing: the model as it is stored
};

// "float"; "nf4", "fp4", "int8"; "nf4-dq", "fp4-dq" (double quantization); "gptq", "awq" and "rtn" (GPTQ
// files without calibration), with ":BITS" and ":BITS:GROUP" (default 4 and up to 128). kInvalidArgument
// lists these.
Expected<Method> parse_method(std::string_view text);
// Separated by commas; none twice.
Expected<std::vector<Method>> parse_methods(std::string_view text);

// float,nf4,nf4-dq,int8,gptq:4,gptq:3,awq:4.
inline constexpr std::string_view kDefaultMethods = "float,nf4,nf4-dq,int8,gptq:4,gptq:3,awq:4";

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_METHOD_H_
