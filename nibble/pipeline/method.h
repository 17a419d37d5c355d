#ifndef NIBBLE_PIPELINE_METHOD_H_
#define NIBBLE_PIPELINE_METHOD_H_

// The short names of quantizations that are planned and compared: "gptq:4:128", "awq", "nf4-dq", "int8",
// "float".

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/pipeline/quantize_options.h"

namespace nibble {

struct Method {
  std::string id;     // fit for a file name: "gptq-4-128"
  std::string label;  // "GPTQ 4-bit g128"
  std::string name;   // "float", "gptq", "awq", "rtn", "nf4", "fp4", "int8"
  int bits = 0;
  bool quantizes = true;    // false: "float", the model as it is
  QuantizeOptions options;  // how it is made
  std::string command;      // flags of `nibble quantize` that make the same
};

// float | nf4 | nf4-dq | fp4 | fp4-dq | int8 | gptq, awq or rtn[:BITS[:GROUP_SIZE[:EFFORT]]].
// kInvalidArgument names the word and what is allowed.
Expected<Method> parse_method(std::string_view word);
// "gptq:4:128,awq,nf4"; a word twice is an error.
Expected<std::vector<Method>> parse_methods(std::string_view words);

// What Nibble writes where nothing else is asked for. effort: none for round-to-nearest.
GPTQConfig default_gptq_config(int bits, int64_t group_size, bool sym, std::optional<Effort> effort);
AwqConfig default_awq_config(int bits, int64_t group_size, std::optional<Effort> effort);

// What `nibble compare MODEL` compares.
inline constexpr std::string_view kDefaultMethods = "float,nf4,nf4-dq,int8,gptq:4,awq:4";
// What `nibble plan MODEL` plans.
inline constexpr std::string_view kPlannedMethods = "float,nf4,nf4-dq,int8,gptq:4,gptq:3,awq:4";

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_METHOD_H_
