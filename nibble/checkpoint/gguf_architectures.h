#ifndef NIBBLE_CHECKPOINT_GGUF_ARCHITECTURES_H_
#define NIBBLE_CHECKPOINT_GGUF_ARCHITECTURES_H_

// What the architectures of GGUF files are in Transformers: a row of data for each.

#include <span>
#include <string_view>

#include "nibble/base/error.h"

namespace nibble {

struct GgufConfig;
struct GgufKeys;

// Which heads the rows of a tensor belong to.
enum class GgufHeads { kNone, kQuery, kKey };

// "attn_q" and "self_attn.q_proj": blk.N. and model.layers.N. stand in front, .weight or .bias behind.
struct GgufTensorName {
  std::string_view gguf;
  std::string_view hf;
  GgufHeads heads = GgufHeads::kNone;
};

// The defaults are Qwen's: tensors correspond one to one to those of Transformers.
struct GgufArchitecture {
  std::string_view name;        // general.architecture
  std::string_view model_type;  // config.json
  std::string_view class_name;  // "LlamaForCausalLM"
  // Tensors of a layer that are called otherwise than in the other architectures.
  std::span<const GgufTensorName> own_names = {};
  std::string_view activation_key = "hidden_act";
  std::string_view activation = "silu";
  // Text of the token that ends a turn of a chat, for files without tokenizer.ggml.eot_token_id. "": unknown.
  std::string_view end_of_turn = "";
  // llama.cpp rotates neighbouring elements, Transformers the two halves of a head; the rows of
  // q_proj and k_proj were reordered when the file was made.
  bool has_permuted_heads = false;
  bool norms_have_one_more = false;       // norms are stored as w + 1 where Transformers has w (Gemma)
  bool rotates_partly = false;            // rope.dimension_count may be below head_dim
  bool has_sliding_window = false;        // elsewhere the key is refused
  bool byte_token_is_tab = false;         // <0x09> is the character itself, and merges (Gemma)
  bool tokens_strip_white_space = false;  // behind most added tokens (Phi-3)
  // What config.json has beside the keys of every architecture.
  Status (*configure)(const GgufKeys& keys, GgufConfig& config) = nullptr;
};

// kUnsupported names the architectures that are known.
Expected<const GgufArchitecture*> find_gguf_architecture(std::string_view name);

// The name in Transformers of a tensor of a layer ("attn_q"); null for one that is not known.
const GgufTensorName* find_layer_tensor(const GgufArchitecture& architecture, std::string_view name);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_GGUF_ARCHITECTURES_H_
