#ifndef NIBBLE_CHECKPOINT_CHECKPOINT_H_
#define NIBBLE_CHECKPOINT_CHECKPOINT_H_

// Named tensors of a model, whatever files they lie in. Opening reads headers only.

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "nibble/base/tensor.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble {

// Immutable; any thread.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  // Every tensor with its type and shape, by name.
  const std::map<std::string, TensorInfo, std::less<>>& tensors() const { return tensors_; }
  const TensorInfo* find(std::string_view name) const;

  // The tensor itself: a view into the mapped file (safetensors), or converted now (GGUF).
  // kNotFound if there is none of that name.
  virtual Expected<Tensor> tensor(std::string_view name) const = 0;

  // Says that the bytes of a tensor have been copied elsewhere, so that its mapped pages may leave
  // memory; they come back when it is read again. Nothing happens where no file is mapped.
  virtual void drop(std::string_view /*name*/) const {}

  // Where a tensor lies, for messages: "model-00001-of-00002.safetensors".
  virtual std::string file_of(std::string_view name) const = 0;

  // Bytes of all tensors as stored, and of all files.
  virtual size_t file_bytes() const = 0;

  // The `__metadata__` of the files, merged.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 protected:
  std::map<std::string, TensorInfo, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

// The weights that belong to `files`: model.safetensors, or the shards of
// model.safetensors.index.json, or an old GPTQ basename (gptq_model-4bit-128g.safetensors), or the
// GGUF file. A folder with pickle files only is kUnsupported with the way out.
Expected<std::shared_ptr<const Checkpoint>> open_checkpoint(const ModelFiles& files);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_CHECKPOINT_H_
