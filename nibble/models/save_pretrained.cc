// Decoder::save_pretrained.

#include "nibble/checkpoint/convert.h"
#include "nibble/models/decoder.h"
#include "nibble/models/module_slots.h"
#include "nibble/models/transposed_checkpoint.h"

namespace nibble {

Status Decoder::save_pretrained(const std::filesystem::path& folder, size_t max_shard_size) const {
  ModelFiles files = origin_.files;
  // Where the weights were quantized while loading, config.json has to say so.
  if (origin_.quantization && !origin_.pre_quantized) {
    Json json = config_.json;
    json["quantization_config"] = to_json(*origin_.quantization);
    files.texts["config.json"] = dump_json(json) + "\n";
  }
  const auto checkpoint =
      transpose_linears(origin_.checkpoint, spec_, prefix_is_missing(*origin_.checkpoint, spec_));
  return write_model_folder(files, *checkpoint, folder, max_shard_size);
}

}  // namespace nibble
