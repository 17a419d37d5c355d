#ifndef NIBBLE_CONFIG_ROPE_PARAMETERS_H_
#define NIBBLE_CONFIG_ROPE_PARAMETERS_H_

#include "nibble/config/fields.h"
#include "nibble/config/model_types.h"
#include "nibble/config/pretrained_config.h"

namespace nibble {

// Fills config.rope and config.rope_sliding; head_dim, max_position_embeddings and layer_types must
// be known. rotated_dims: how many dimensions of a head partial_rotary_factor is a share of.
void read_rope(const ModelType& type, size_t rotated_dims, PretrainedConfig& config, Faults& faults);

}  // namespace nibble

#endif  // NIBBLE_CONFIG_ROPE_PARAMETERS_H_
