#ifndef NIBBLE_MODELS_MODULE_SLOTS_H_
#define NIBBLE_MODELS_MODULE_SLOTS_H_

// The modules with weights that a model consists of, and the check that a checkpoint has exactly
// them: a tensor nobody used or a module nobody filled is an error, never a random initialisation.

#include <set>
#include <string>
#include <vector>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/models/architecture.h"

namespace nibble {

enum class ModuleRole { kLinear, kEmbedding, kHead, kNorm, kRouter };

struct ModuleSlot {
  std::string name;  // "model.layers.0.self_attn.q_proj"; its tensor is NAME.weight, or codes
  ModuleRole role;
  Shape shape;                 // of the weight: [out_features, in_features], [rows, width], [n]
  bool bias_required = false;  // a bias that is not required is used where the file has one
  // A tensor [in_features], or none, that the file may have: it divides what the module reads, which only
  // readers of AWQ know.
  std::string input_scales = {};
  std::string_view correction = "";  // NAME.correction [out_features] must be there too; "": no such tensor
};

// In the order of the forward pass. `prefix_missing`: the file leaves out names.prefix.
std::vector<ModuleSlot> module_slots(const DecoderSpec& spec, const PretrainedConfig& config,
                                     bool prefix_missing);

// Whether the checkpoint was saved from the bare model, without "model." in front of its names.
bool prefix_is_missing(const Checkpoint& checkpoint, const DecoderSpec& spec);

// The slots that are quantized: linear layers, but not the head and not the router of experts.
std::set<std::string> linear_modules(const std::vector<ModuleSlot>& slots);

struct SlotCheckOptions {
  // Modules stored as codes: their shapes are checked when they are decoded.
  std::set<std::string> quantized = {};
  bool tied_head = false;  // an lm_head.weight in the file is then a copy of the embedding
};

// Reports missing modules, wrong shapes and unused tensors, the first few of each kind by name.
Status check_slots(const Checkpoint& checkpoint, const std::vector<ModuleSlot>& slots,
                   const DecoderSpec& spec, const SlotCheckOptions& options);

}  // namespace nibble

#endif  // NIBBLE_MODELS_MODULE_SLOTS_H_
