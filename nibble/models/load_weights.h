#ifndef NIBBLE_MODELS_LOAD_WEIGHTS_H_
#define NIBBLE_MODELS_LOAD_WEIGHTS_H_

// From the names of an architecture to the modules of a file, and from there to a decoder's weights;
// in parts, since a quantizer holds one block at a time.

#include <string>
#include <vector>

#include "nibble/models/decoder.h"
#include "nibble/models/weight_loader.h"

namespace nibble {

// Module names as the file has them; empty where the architecture has no such module.
struct MlpModules {
  std::string gate, up, gate_up, down;
  std::string scaled_activation;
};
struct BlockModules {
  std::string prefix;  // "model.layers.3."
  std::string q, k, v, qkv, q_a, q_b, kv_a, kv_b, o;
  std::string router, shared_gate;
  std::vector<MlpModules> mlps;  // one, or the experts: those that the router chooses from, the shared one
};
BlockModules block_modules(const DecoderSpec& spec, size_t layer, bool prefix_missing);

// The linear layers of a block, in the order of the forward pass; not the router and the shared expert's
// gate.
std::vector<std::string> linears_of_block(const BlockModules& modules);

// Of the activations that a quantized linear of a block reads: 16 bits where most tokens would need them
// (docs/kernels.md).
ActivationBits activation_bits(const BlockModules& modules, std::string_view module);

// `full` without "model." where the file leaves it out.
std::string name_in_file(const DecoderSpec& spec, std::string_view full, bool prefix_missing);

// What block_steps.h wants to know of a block: window, kind of rotation, norms, the router's correction.
Status load_block_norms(const DecoderSpec& spec, const PretrainedConfig& config, size_t layer,
                        const BlockModules& modules, WeightLoader& loader, DecoderBlock& block);

// Everything outside the blocks but the head.
Expected<DecoderWeights> load_frame(const DecoderSpec& spec, const PretrainedConfig& config,
                                    bool prefix_missing, WeightLoader& loader);

}  // namespace nibble

#endif  // NIBBLE_MODELS_LOAD_WEIGHTS_H_
