#ifndef NIBBLE_MODELS_INSPECT_FILES_H_
#define NIBBLE_MODELS_INSPECT_FILES_H_

// What `nibble inspect` opens before it says anything: the small files and the headers of the weights.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/config/pretrained_config.h"
#include "nibble/config/quantization_config.h"

namespace nibble {

struct InspectedFiles {
  Json json;                               // config.json, an object
  std::string model_type;                  // empty: it names none
  bool supported = false;                  // whether Nibble runs the architecture
  std::optional<PretrainedConfig> config;  // always there where it is supported
  ResolvedQuantization quantization;
  std::shared_ptr<const Checkpoint> checkpoint;
  std::vector<std::string> quantized_modules;  // stored as codes, by the names of their tensors
};

// kDataLoss where weights are stored as codes and no configuration says how.
Expected<InspectedFiles> open_inspected(const ModelFiles& files);

// Missing, misshapen and unused tensors. Nothing of an architecture that Nibble does not run.
Status check_tensors(const InspectedFiles& files);

}  // namespace nibble

#endif  // NIBBLE_MODELS_INSPECT_FILES_H_
