#ifndef NIBBLE_MODELS_SCALE_GROUPS_H_
#define NIBBLE_MODELS_SCALE_GROUPS_H_

// Where a block lets channels be scaled without changing what it computes: the values between a norm,
// or the rows of a linear, and the linears that read them. What writes channel j is divided by s[j], the
// columns j of what reads it are multiplied by s[j]. AWQ (arXiv:2306.00978) makes its weights easier to
// round this way.

#include <string>
#include <vector>

#include "nibble/models/architecture.h"
#include "nibble/models/load_weights.h"
#include "nibble/models/module_slots.h"

namespace nibble {

// Names are those of the file ("model.layers.3.input_layernorm"). One of norm, producer and activation is
// not empty.
struct ScaleGroup {
  std::string norm;      // its weight (and bias) is divided
  std::string producer;  // a linear: its last in_features rows (of what reads them) are divided, and its bias
  std::string activation;                // its scales are multiplied: they divide what it gives
  std::vector<std::string> layers;       // linears that read it
  std::vector<std::string> compensated;  // linears that read it too and are never quantized (routers)
};

// The groups of one block in the order of AutoAWQ's tables: attention's norm -> q, k, v; v -> o; the
// MLP's norm -> gate, up; up -> down. Of latent attention: attention's norm -> q or q_a, kv_a; the norms of
// the short vectors -> q_b, kv_b. A group is left out where no exact fold exists:
// * norm -> linears, where the norm stands behind the addition, or where there is none, or none with
//   a weight;
// * v -> o, unless every head has keys and values of its own and v and o have one shape (AutoAWQ's rule;
//   of a fused weight the last third of the rows is v), and where attention clamps v, and where a
//   fused weight has its rows by head; kv_b -> o of latent attention, for its rows are by head, too;
// * up -> down of an MLP without gate, unless its activation is relu: relu(x / s) = relu(x) / s. Where
//   readers know scales of the activation, these take its place: activation -> down.
// Linears of one norm make one group, whichever branch they belong to (Phi), all experts' too (Mixtral).
std::vector<ScaleGroup> scale_groups(const DecoderSpec& spec, const BlockModules& modules,
                                     const std::vector<ModuleSlot>& slots);

}  // namespace nibble

#endif  // NIBBLE_MODELS_SCALE_GROUPS_H_
