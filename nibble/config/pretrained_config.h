#ifndef NIBBLE_CONFIG_PRETRAINED_CONFIG_H_
#define NIBBLE_CONFIG_PRETRAINED_CONFIG_H_

// config.json, in the dialects of Transformers 4 (rope_theta, rope_scaling, torch_dtype) and 5
// (rope_parameters, dtype). Names are those of the file.

#include <optional>
#include <string>
#include <vector>

#include "nibble/base/dtype.h"
#include "nibble/base/json.h"

namespace nibble {

// One set of rotary parameters: `rope_parameters`, or `rope_scaling` with `rope_theta`.
struct RopeParameters {
  std::string rope_type = "default";  // default, linear, dynamic, yarn, longrope, llama3
  double rope_theta = 10000.0;
  double partial_rotary_factor = 1.0;  // share of head_dim that is rotated
  double factor = 1.0;
  double low_freq_factor = 1.0;                 // llama3
  double high_freq_factor = 4.0;                // llama3
  size_t original_max_position_embeddings = 0;  // 0: max_position_embeddings
  std::optional<double> attention_factor = {};  // yarn, longrope
  double beta_fast = 32.0;                      // yarn
  double beta_slow = 1.0;                       // yarn
  std::optional<double> mscale = {};            // yarn
  std::optional<double> mscale_all_dim = {};    // yarn
  bool truncate = true;                         // yarn
  std::vector<double> short_factor = {};        // longrope: [rotary dims / 2]
  std::vector<double> long_factor = {};

  bool operator==(const RopeParameters&) const = default;
};

// What every decoder-only architecture has. What only some have is read from `json` through the
// get_* functions by whoever builds that architecture.
struct PretrainedConfig {
  std::string model_type;                  // "llama"
  std::vector<std::string> architectures;  // "LlamaForCausalLM"

  size_t vocab_size = 0;
  size_t hidden_size = 0;
  size_t intermediate_size = 0;
  size_t num_hidden_layers = 0;
  size_t num_attention_heads = 0;
  size_t num_key_value_heads = 0;
  size_t head_dim = 0;        // of queries and keys
  size_t value_head_dim = 0;  // of values; head_dim but with latent attention (DeepSeek)
  size_t rope_head_dim = 0;   // the last of head_dim, of which partial_rotary_factor is a share; usually all
  size_t max_position_embeddings = 0;

  std::string hidden_act;  // "silu", "gelu_pytorch_tanh", "relu"
  double norm_eps = 1e-6;  // rms_norm_eps, layer_norm_eps, layer_norm_epsilon, norm_epsilon
  bool tie_word_embeddings = true;
  DType dtype = DType::kF32;  // of the stored weights, as the file declares it
  bool has_dtype = false;

  // One per layer type: "full_attention" always, "sliding_attention" where it differs (gemma3).
  RopeParameters rope;
  std::optional<RopeParameters> rope_sliding;

  // Tokens that a sliding layer sees; nothing if no layer slides (also for use_sliding_window:
  // false). layer_types[i]: "full_attention" or "sliding_attention", one per layer, always filled.
  std::optional<size_t> sliding_window;
  std::vector<std::string> layer_types;

  std::vector<int32_t> bos_token_id, eos_token_id;  // none, one or several
  std::optional<int32_t> pad_token_id;

  Json json;  // the whole file, unknown keys included; written back as it is

  // The keys differ by model_type; a table in pretrained_config.cc says which (n_head, ffn_dim...).
  // Refused with kInvalidArgument: sizes that are missing, not positive integers, absurd (more than
  // 2^31), or that contradict each other; rope kinds and activations that do not exist.
  // No default of a class is ever taken for a size: a missing hidden_size is an error.
  static Expected<PretrainedConfig> from_json(const Json& json);

  // Optional keys of single architectures, with a default; a wrong type is an error that names the key.
  Expected<double> get_number(std::string_view key, double fallback) const;
  Expected<size_t> get_size(std::string_view key, size_t fallback) const;
  Expected<bool> get_bool(std::string_view key, bool fallback) const;
  Expected<std::string> get_string(std::string_view key, std::string_view fallback) const;
  // Nothing where the key is missing or null.
  Expected<std::optional<double>> get_optional_number(std::string_view key) const;
};

}  // namespace nibble

#endif  // NIBBLE_CONFIG_PRETRAINED_CONFIG_H_
