#ifndef NIBBLE_CHECKPOINT_GGUF_MODEL_H_
#define NIBBLE_CHECKPOINT_GGUF_MODEL_H_

// A GGUF file (or the parts of one, by the name of any of them) seen as a Hugging Face model: its tensors
// under the names, in the order of rows and in the one element type that Transformers would have; its
// metadata as config.json and the like. docs/formats/gguf.md says how.

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "nibble/checkpoint/checkpoint.h"

namespace nibble {

// config.json, generation_config.json, tokenizer.json, tokenizer_config.json, chat_template.jinja;
// the last three only if the file has a tokenizer or a template.
Expected<std::map<std::string, std::string>> read_gguf_texts(const std::filesystem::path& path);

// Tensors are expanded when they are asked for, and not kept.
Expected<std::shared_ptr<const Checkpoint>> open_gguf_checkpoint(const std::filesystem::path& path);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_GGUF_MODEL_H_
