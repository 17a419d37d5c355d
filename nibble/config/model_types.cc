#include "nibble/config/model_types.h"

#include <array>

namespace nibble {
namespace {

constexpr ModelType with_layer_norm(ModelType type, std::string_view eps_key) {
  type.norm_eps = eps_key;
  type.default_norm_eps = 1e-5;
  return type;
}

constexpr ModelType gemma(std::string_view name) {
  ModelType type = {.model_type = name};
  type.hidden_act = "hidden_activation";
  type.default_act = "gelu_pytorch_tanh";
  type.tie_word_embeddings = true;
  type.default_head_dim = 256;
  return type;
}

constexpr ModelType gpt2_like(std::string_view name) {
  ModelType type = with_layer_norm({.model_type = name}, "layer_norm_epsilon");
  type.hidden_size = "n_embd";
  type.intermediate_size = "n_inner";
  type.num_hidden_layers = "n_layer";
  type.num_attention_heads = "n_head";
  type.max_position_embeddings = "n_positions";
  type.hidden_act = "activation_function";
  type.default_act = "gelu_new";
  type.intermediate_is_optional = true;
  type.kv_heads = KvHeads::kAll;
  type.has_rope = false;
  type.tie_word_embeddings = true;
  return type;
}

constexpr ModelType bloom() {
  ModelType type = with_layer_norm({.model_type = "bloom"}, "layer_norm_epsilon");
  type.older_hidden_size = "n_embed";
  type.intermediate_size = "";
  type.num_hidden_layers = "n_layer";
  type.num_attention_heads = "n_head";
  type.max_position_embeddings = "";
  type.hidden_act = "";
  type.default_act = "gelu_pytorch_tanh";
  type.intermediate_is_optional = true;
  type.kv_heads = KvHeads::kAll;
  type.has_rope = false;
  type.tie_word_embeddings = true;
  return type;
}

constexpr ModelType cohere(std::string_view name) {
  ModelType type = with_layer_norm({.model_type = name}, "layer_norm_eps");
  type.tie_word_embeddings = true;
  return type;
}

constexpr ModelType cohere2() {
  ModelType type = cohere("cohere2");
  type.sliding = SlidingRule::kPattern;
  type.sliding_window = 4096;
  type.sliding_pattern = 4;
  return type;
}

constexpr ModelType falcon() {
  ModelType type = with_layer_norm({.model_type = "falcon"}, "layer_norm_epsilon");
  type.default_max_position_embeddings = 2048;
  type.intermediate_size = "ffn_hidden_size";
  type.hidden_act = "activation";
  type.default_act = "gelu";
  type.intermediate_is_optional = true;
  type.kv_heads = KvHeads::kFalcon;
  type.tie_word_embeddings = true;
  return type;
}

constexpr ModelType gemma2() {
  ModelType type = gemma("gemma2");
  type.sliding = SlidingRule::kPattern;
  type.sliding_window = 4096;
  type.sliding_pattern = 2;
  return type;
}

constexpr ModelType gemma3_text() {
  ModelType type = gemma("gemma3_text");
  type.rope_theta = 1'000'000.0;
  type.sliding = SlidingRule::kPattern;
  type.sliding_window = 4096;
  type.sliding_pattern = 6;
  return type;
}

constexpr ModelType gpt_neox() {
  ModelType type = with_layer_norm({.model_type = "gpt_neox"}, "layer_norm_eps");
  type.default_act = "gelu";
  type.kv_heads = KvHeads::kAll;
  type.partial_rotary_factor = 0.25;
  return type;
}

constexpr ModelType gptj() {
  ModelType type = gpt2_like("gptj");
  type.has_rope = true;
  type.default_rotary_dim = 64;
  type.tie_word_embeddings = false;
  return type;
}

constexpr ModelType gpt_bigcode() {
  ModelType type = gpt2_like("gpt_bigcode");
  type.default_act = "gelu_pytorch_tanh";
  type.kv_heads = KvHeads::kMultiQuery;
  return type;
}

constexpr ModelType mpt() {
  ModelType type = with_layer_norm({.model_type = "mpt"}, "layer_norm_epsilon");
  type.hidden_size = "d_model";
  type.intermediate_size = "";
  type.num_hidden_layers = "n_layers";
  type.num_attention_heads = "n_heads";
  type.max_position_embeddings = "max_seq_len";
  type.hidden_act = "";
  type.default_act = "gelu";
  type.intermediate_is_optional = true;
  type.kv_heads = KvHeads::kAll;
  type.has_rope = false;
  type.tie_word_embeddings = true;
  return type;
}

constexpr ModelType opt() {
  ModelType type = with_layer_norm({.model_type = "opt"}, "");
  type.intermediate_size = "ffn_dim";
  type.hidden_act = "activation_function";
  type.default_act = "relu";
  type.kv_heads = KvHeads::kAll;
  type.has_rope = false;
  type.tie_word_embeddings = true;
  return type;
}

constexpr ModelType glm4() {
  return {.model_type = "glm4",
          .default_norm_eps = 1.5625e-7,
          .default_head_dim = 128,
          .partial_rotary_factor = 0.5};
}

constexpr ModelType nemotron() {
  ModelType type = with_layer_norm({.model_type = "nemotron"}, "norm_eps");
  type.default_act = "relu2";
  type.partial_rotary_factor = 0.5;
  return type;
}

constexpr ModelType phi() {
  ModelType type = with_layer_norm({.model_type = "phi"}, "layer_norm_eps");
  type.default_act = "gelu_new";
  type.partial_rotary_factor = 0.5;
  return type;
}

constexpr ModelType stablelm() {
  ModelType type = with_layer_norm({.model_type = "stablelm"}, "layer_norm_eps");
  type.partial_rotary_factor = 0.25;
  return type;
}

constexpr ModelType starcoder2() {
  ModelType type = with_layer_norm({.model_type = "starcoder2"}, "norm_epsilon");
  type.default_act = "gelu_pytorch_tanh";
  type.tie_word_embeddings = true;
  type.sliding = SlidingRule::kAll;
  return type;
}

constexpr ModelType kModelTypes[] = {
    bloom(),
    cohere("cohere"),
    cohere2(),
    {.model_type = "deepseek_v2", .kv_heads = KvHeads::kAll, .latent_attention = true},
    {.model_type = "deepseek_v3", .kv_heads = KvHeads::kAll, .latent_attention = true},
    falcon(),
    gemma("gemma"),
    gemma2(),
    gemma3_text(),
    glm4(),
    gpt2_like("gpt2"),
    gpt_bigcode(),
    gpt_neox(),
    gptj(),
    {.model_type = "granite"},
    {.model_type = "llama"},
    {.model_type = "mistral", .sliding = SlidingRule::kAll, .sliding_window = 4096},
    {.model_type = "mixtral",
     .default_norm_eps = 1e-5,
     .rope_theta = 1'000'000.0,
     .sliding = SlidingRule::kAll},
    mpt(),
    nemotron(),
    with_layer_norm({.model_type = "olmo"}, ""),
    {.model_type = "olmo2", .default_norm_eps = 1e-5},
    opt(),
    phi(),
    {.model_type = "phi3", .default_norm_eps = 1e-5, .sliding = SlidingRule::kAll},
    {.model_type = "qwen2", .sliding = SlidingRule::kFromMaxWindow, .sliding_window = 4096},
    {.model_type = "qwen2_moe", .sliding = SlidingRule::kLayerTypesOnly, .sliding_window = 4096},
    {.model_type = "qwen3",
     .default_head_dim = 128,
     .sliding = SlidingRule::kFromMaxWindow,
     .sliding_window = 4096},
    {.model_type = "qwen3_moe", .sliding = SlidingRule::kUseFlag, .sliding_window = 4096},
    {.model_type = "smollm3",
     .tie_word_embeddings = true,
     .rope_theta = 2'000'000.0,
     .sliding = SlidingRule::kLayerTypesOnly},
    stablelm(),
    starcoder2(),
};

}  // namespace

const ModelType* find_model_type(std::string_view model_type) {
  for (const ModelType& type : kModelTypes) {
    if (type.model_type == model_type) return &type;
  }
  return nullptr;
}

std::string known_model_types() {
  std::string names;
  for (const ModelType& type : kModelTypes) {
    if (!names.empty()) names += ", ";
    names += type.model_type;
  }
  return names;
}

}  // namespace nibble
