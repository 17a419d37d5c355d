#ifndef NIBBLE_CHECKPOINT_CONVERT_H_
#define NIBBLE_CHECKPOINT_CONVERT_H_

#include <cstddef>
#include <filesystem>
#include <string_view>

#include "nibble/checkpoint/checkpoint.h"

namespace nibble {

// Writes a whole model into `folder` (made if it is not there) so that Transformers loads it:
// config.json, the tokenizer's files and so on as `files` has them, the weights as safetensors.
// config.json comes last: a folder without it is not taken for a model.
Status write_model_folder(const ModelFiles& files, const Checkpoint& checkpoint,
                          const std::filesystem::path& folder, size_t max_shard_size);

// By the end of its name: weights in any format, or an index of them.
bool is_weight_file(std::string_view name);

// Copies every small file of the model but config.json and what holds weights, unchanged.
Status copy_model_texts(const ModelFiles& files, const std::filesystem::path& folder);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_CONVERT_H_
