#ifndef NIBBLE_PIPELINE_JOBS_H_
#define NIBBLE_PIPELINE_JOBS_H_

// Which modules of a model become codes, and how each of them.

#include <map>
#include <set>
#include <string>

#include "nibble/models/model_source.h"
#include "nibble/pipeline/quantize_options.h"
#include "nibble/quantization/formats/encode.h"

namespace nibble {

struct ModuleJob {
  std::string module;
  size_t out_features = 0;
  size_t in_features = 0;
  // Not of bitsandbytes:
  GptqSettings settings = {};
  AffineLayout layout = AffineLayout::kGptq;

  int64_t group_size() const {
    return settings.group_size == 0 ? -1 : static_cast<int64_t>(settings.group_size);
  }
};

struct Jobs {
  QuantizationConfig config;  // what the result says of itself
  std::map<std::string, ModuleJob> modules;

  const ModuleJob* find(const std::string& module) const {
    const auto found = modules.find(module);
    return found == modules.end() ? nullptr : &found->second;
  }
};

// kInvalidArgument for what does not go together: a group size that divides nothing, limits of the engine,
// a quantized head whose weight is the embedding's, rules that leave nothing to do.
Expected<Jobs> make_jobs(const ModelSource& source, const QuantizeOptions& options);

// Adds to the list of names that a method leaves alone what its readers need; GPTQ has none. They match the
// list in different ways: AutoAWQ looks for a word inside the name within a block, Transformers 4 for whole
// names, Transformers 5 for beginnings and ends. The user's words together with the full names that they
// meant say the same to all of them.
void complete_skip_list(const ModelSource& source, QuantizationConfig& config);

// Of GPTQ: Transformers knows no rules, only the list of what is quantized.
void list_quantized_modules(const ModelSource& source, const std::set<std::string>& quantized,
                            QuantizationConfig& config);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_JOBS_H_
