#ifndef NIBBLE_CONFIG_MODEL_TYPES_H_
#define NIBBLE_CONFIG_MODEL_TYPES_H_

// How the config.json of each model_type spells what all have, and the defaults of its class in
// Transformers. Sizes have no defaults.

#include <cstddef>
#include <string>
#include <string_view>

namespace nibble {

// Which layers see a window only, where the file has no layer_types.
enum class SlidingRule {
  kNone,            // sliding_window means nothing here
  kAll,             // every layer, if sliding_window is set
  kFromMaxWindow,   // with use_sliding_window: layers from max_window_layers on
  kPattern,         // all but every sliding_window_pattern-th layer
  kUseFlag,         // with use_sliding_window: every layer
  kLayerTypesOnly,  // with use_sliding_window the file must have layer_types
};

// How the number of key/value heads is found.
enum class KvHeads {
  kKey,         // num_key_value_heads, as many as heads where it is missing
  kAll,         // always as many as heads
  kMultiQuery,  // 1 with multi_query, which is the default
  kFalcon,      // 1 with multi_query unless new_decoder_architecture, which has num_kv_heads
};

struct ModelType {
  std::string_view model_type;

  // Keys; "" where the file has none. Files may also have the keys that most types have ("hidden_size").
  std::string_view hidden_size = "hidden_size";
  std::string_view older_hidden_size = "hidden_size";
  std::string_view intermediate_size = "intermediate_size";
  std::string_view num_hidden_layers = "num_hidden_layers";
  std::string_view num_attention_heads = "num_attention_heads";
  std::string_view max_position_embeddings = "max_position_embeddings";  // "": no limit
  std::string_view hidden_act = "hidden_act";
  std::string_view norm_eps = "rms_norm_eps";

  // Defaults of the class.
  std::string_view default_act = "silu";
  size_t default_max_position_embeddings = 0;  // 0: the key must be there
  double default_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  size_t default_head_dim = 0;            // 0: hidden_size / num_attention_heads
  bool intermediate_is_optional = false;  // 4 * hidden_size

  KvHeads kv_heads = KvHeads::kKey;

  bool latent_attention = false;  // heads have qk_nope_head_dim, qk_rope_head_dim and v_head_dim (DeepSeek)

  bool has_rope = true;
  double rope_theta = 10000.0;
  double partial_rotary_factor = 1.0;
  size_t default_rotary_dim = 0;  // where the key rotary_dim is missing; 0: partial_rotary_factor says it

  SlidingRule sliding = SlidingRule::kNone;
  size_t sliding_window = 0;  // where the key is missing (null means none); 0: none
  size_t sliding_pattern = 0;
};

// Nothing for an unknown name.
const ModelType* find_model_type(std::string_view model_type);
std::string known_model_types();  // "bloom, cohere, ..."

}  // namespace nibble

#endif  // NIBBLE_CONFIG_MODEL_TYPES_H_
