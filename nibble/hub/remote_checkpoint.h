#ifndef NIBBLE_HUB_REMOTE_CHECKPOINT_H_
#define NIBBLE_HUB_REMOTE_CHECKPOINT_H_

// A model that is on the hub as the rest of the program knows models: small files, and a checkpoint of which
// only headers are read. A few range requests take the place of gigabytes.

#include <memory>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/hub/remote_model.h"

namespace nibble {

struct RemoteHeaders {
  ModelFiles files;  // config.json and quantization settings as texts; no folder
  std::shared_ptr<const Checkpoint> checkpoint;
  size_t tokenizer_bytes = 0;  // of tokenizer.json, which is not read
};

// Of model.safetensors, or the shards of model.safetensors.index.json, or the only other .safetensors file.
// checkpoint->tensor() fetches the bytes of that tensor; one thread at a time. kNotFound where there are no
// such weights, kDataLoss for headers that cannot be.
Expected<RemoteHeaders> read_remote_headers(RemoteModel model);

}  // namespace nibble

#endif  // NIBBLE_HUB_REMOTE_CHECKPOINT_H_
