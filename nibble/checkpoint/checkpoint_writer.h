#ifndef NIBBLE_CHECKPOINT_CHECKPOINT_WRITER_H_
#define NIBBLE_CHECKPOINT_CHECKPOINT_WRITER_H_

// Writes tensors into a folder as model.safetensors, or as shards and an index, as
// huggingface_hub's split_torch_state_dict_into_shards does.

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "nibble/base/tensor.h"

namespace nibble {

// A tensor to be written, and how to get it when its turn comes, so that the writer holds one.
struct TensorSource {
  std::string name;
  TensorInfo info;
  std::function<Expected<Tensor>()> load;
  std::function<void()> written = {};  // called when the bytes are in the file: pages may go
};

struct CheckpointWriterOptions {
  size_t max_shard_size = 5'000'000'000;  // bytes of tensors per file, decimal GB as in Transformers
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
};

// An earlier model in the folder loses its config.json and kQuantizeConfigFiles before the first file
// appears: new weights under an old description could be read, and wrongly. Whoever calls writes them anew
// afterwards. Shards are filled, and tensors loaded, in the order of `tensors`; within a file tensors lie
// sorted by falling alignment, then by name, and the header is padded to 8 bytes, as the original writer
// does. Each file appears whole or not at all; files of an earlier, differently sharded model are removed
// last.
Status write_checkpoint(const std::filesystem::path& folder, const std::vector<TensorSource>& tensors,
                        const CheckpointWriterOptions& options = {});

// One .safetensors file.
Status write_safetensors(const std::filesystem::path& path, const std::vector<TensorSource>& tensors,
                         const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

// For small files: name -> tensor.
Status write_safetensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                         const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_CHECKPOINT_WRITER_H_
