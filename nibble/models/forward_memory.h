#ifndef NIBBLE_MODELS_FORWARD_MEMORY_H_
#define NIBBLE_MODELS_FORWARD_MEMORY_H_

// Scratch memory of a forward pass, from sizes alone: the arena's capacity after Decoder::forward.

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "nibble/models/architecture.h"
#include "nibble/models/module_slots.h"
#include "nibble/nn/linear_size.h"

namespace nibble {

// Of a module, by its name in the file.
using LinearSizeOf = std::function<LinearSize(const std::string& module)>;

struct ForwardShape {
  const DecoderSpec& spec;
  const PretrainedConfig& config;
  bool prefix_missing = false;
};

// `tokens` in one pass, of which `num_logits` want logits.
size_t forward_arena_bytes(const ForwardShape& shape, const LinearSizeOf& size_of, size_t tokens,
                           size_t num_logits, size_t threads);

}  // namespace nibble

#endif  // NIBBLE_MODELS_FORWARD_MEMORY_H_
