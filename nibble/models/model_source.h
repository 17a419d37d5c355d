#ifndef NIBBLE_MODELS_MODEL_SOURCE_H_
#define NIBBLE_MODELS_MODEL_SOURCE_H_

// A model that is opened but not loaded: its configuration, and the float values of any module when
// they are asked for. What a quantizer reads from.

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/config/pretrained_config.h"
#include "nibble/config/quantization_config.h"
#include "nibble/models/architecture.h"
#include "nibble/models/module_slots.h"

namespace nibble {

struct ModelSource {
  ModelFiles files;
  PretrainedConfig config;
  DecoderSpec spec;
  std::shared_ptr<const Checkpoint> checkpoint;
  std::vector<ModuleSlot> slots;
  bool prefix_missing = false;
  std::optional<QuantizationConfig> quantization;  // of the stored weights, if they are codes
  std::set<std::string> quantized;                 // modules that are stored as codes
  size_t tokenizer_bytes = 0;                      // of tokenizer.json; 0 where there is none

  // Headers only; every module is checked to be there with the right shape.
  static Expected<ModelSource> open(const ModelFiles& files);
  // The same with weights from elsewhere (hub/remote_checkpoint.h).
  static Expected<ModelSource> open(const ModelFiles& files, std::shared_ptr<const Checkpoint> checkpoint);

  const ModuleSlot& slot(std::string_view module) const;  // it must exist

  // [out_features * in_features]; codes are dequantized. kDataLoss for NaN and infinities.
  Expected<std::vector<float>> weight(const std::string& module) const;
  Expected<std::vector<float>> bias(const std::string& module) const;  // empty where there is none
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_MODEL_SOURCE_H_
