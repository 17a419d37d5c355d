#ifndef NIBBLE_CHECKPOINT_SHARD_INDEX_H_
#define NIBBLE_CHECKPOINT_SHARD_INDEX_H_

// model.safetensors.index.json: which tensor lies in which file.

#include <map>
#include <string>
#include <string_view>

#include "nibble/base/error.h"

namespace nibble {

// The weight_map: tensor name -> shard. kDataLoss for what is no index, and for a shard that is not the plain
// name of a .safetensors file.
Expected<std::map<std::string, std::string>> parse_shard_index(std::string_view text);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_SHARD_INDEX_H_
