#ifndef NIBBLE_MODELS_INPUT_SCALES_H_
#define NIBBLE_MODELS_INPUT_SCALES_H_

// The scales of an activation function that AutoAWQ saves as NAME.scales (its ScaledActivation): they divide
// what the function gives, and so what the linear behind it reads (ModuleSlot::input_scales). Only readers
// of AWQ know them; for others they go into the weight: W (x / s) = (W / s) x.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/models/module_slots.h"

namespace nibble {

// By module, the tensors that the file has.
std::map<std::string, std::string> input_scales_of(const Checkpoint& checkpoint,
                                                   const std::vector<ModuleSlot>& slots);

// kDataLoss where one is 0 or not finite.
Expected<std::vector<float>> read_input_scales(const Checkpoint& checkpoint, const std::string& tensor);

// The same model without such tensors: the weights of their modules, which are floats, are divided by them
// and shown as F32.
std::shared_ptr<const Checkpoint> absorb_input_scales(std::shared_ptr<const Checkpoint> checkpoint,
                                                      const std::vector<ModuleSlot>& slots);

}  // namespace nibble

#endif  // NIBBLE_MODELS_INPUT_SCALES_H_
