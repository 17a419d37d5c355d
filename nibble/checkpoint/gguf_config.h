#ifndef NIBBLE_CHECKPOINT_GGUF_CONFIG_H_
#define NIBBLE_CHECKPOINT_GGUF_CONFIG_H_

// config.json and generation_config.json from the metadata of a GGUF file.

#include <cstddef>
#include <optional>
#include <string_view>

#include "nibble/base/dtype.h"
#include "nibble/base/json.h"
#include "nibble/checkpoint/gguf_architectures.h"
#include "nibble/checkpoint/gguf_files.h"

namespace nibble {

struct GgufConfig {
  const GgufArchitecture* architecture = nullptr;
  size_t num_hidden_layers = 0;
  size_t num_attention_heads = 0;
  size_t num_key_value_heads = 0;
  size_t head_dim = 0;
  size_t rotary_dim = 0;  // elements of a head that are rotated
  size_t vocab_size = 0;
  DType dtype = DType::kF16;  // of all tensors, after the import
  Json config;                // config.json
  Json generation_config;     // generation_config.json
};

// kUnsupported names the architecture, tensor type or rotary scaling that is not implemented.
Expected<GgufConfig> make_gguf_config(const GgufFiles& files);

// tokenizer.ggml.WHICH_token_id, checked against the vocabulary; `which`: "bos", "eos"...
Expected<std::optional<uint64_t>> gguf_token_id(const GgufHeader& header, std::string_view which,
                                                size_t vocab_size);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_GGUF_CONFIG_H_
