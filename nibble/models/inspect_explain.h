#ifndef NIBBLE_MODELS_INSPECT_EXPLAIN_H_
#define NIBBLE_MODELS_INSPECT_EXPLAIN_H_

// `nibble inspect --explain`: how Nibble understands a model, and why.

#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble {

struct Answer {
  std::string question;  // "method", "layout", "zero points", "order", "modules", "tied weights", "tokenizer"
  std::string answer;    // "gptq"
  std::vector<std::string> evidence;   // "config.json: quant_method is \"gptq\""; file: key or tensor
  std::vector<std::string> disagreed;  // what says otherwise, and which of both counts
};

// Reads the codes of every quantized module: some of the answers are only in the data. Errors as in
// inspect_model(), but missing, misshapen and unused tensors are a disagreement.
Expected<std::vector<Answer>> explain_model(const ModelFiles& files);

Json to_json(const std::vector<Answer>& answers);
std::string to_text(const std::vector<Answer>& answers);

}  // namespace nibble

#endif  // NIBBLE_MODELS_INSPECT_EXPLAIN_H_
