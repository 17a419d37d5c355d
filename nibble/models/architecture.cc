#include "nibble/models/architecture.h"

#include <array>
#include <cmath>
#include <string>
#include <utility>

namespace nibble {
namespace {

Status configure_biases(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_TRY(const bool attention_bias, config.get_bool("attention_bias", false));
  NIBBLE_TRY(spec.mlp_bias, config.get_bool("mlp_bias", false));
  spec.qkv_bias = spec.names.qkv_bias || attention_bias;
  spec.o_bias = attention_bias;
  return {};
}

Status configure_gemma(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_biases(config, spec));
  spec.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(config.hidden_size)));
  return {};
}

// Gemma 2 and 3: both scale queries by a number of their own and may cap scores and logits.
Status configure_gemma2(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_gemma(config, spec));
  NIBBLE_TRY(const double query_scalar, config.get_number("query_pre_attn_scalar", 256));
  if (!(query_scalar > 0)) {
    return fail(ErrorCode::kInvalidArgument, "query_pre_attn_scalar is {}; it must be positive", query_scalar)
        .at("config.json");
  }
  spec.attention_scale = static_cast<float>(1 / std::sqrt(query_scalar));
  NIBBLE_TRY(const auto attention_cap, config.get_optional_number("attn_logit_softcapping"));
  NIBBLE_TRY(const auto final_cap, config.get_optional_number("final_logit_softcapping"));
  spec.attention_soft_cap = static_cast<float>(attention_cap.value_or(0));
  spec.final_soft_cap = static_cast<float>(final_cap.value_or(0));
  return {};
}

Status configure_opt(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_TRY(const bool bias, config.get_bool("enable_bias", true));
  NIBBLE_TRY(const bool affine, config.get_bool("layer_norm_elementwise_affine", true));
  if (!affine) {
    return fail(ErrorCode::kUnsupported, "layer_norm_elementwise_affine is false: no such model is known")
        .at("config.json");
  }
  spec.qkv_bias = spec.o_bias = spec.mlp_bias = bias;
  NIBBLE_TRY(spec.norm_before_branch, config.get_bool("do_layer_norm_before", true));
  NIBBLE_TRY(const bool removed, config.get_bool("_remove_final_layer_norm", false));
  spec.final_norm = spec.norm_before_branch && !removed;
  NIBBLE_TRY(spec.embedding_size, config.get_size("word_embed_proj_dim", config.hidden_size));
  if (spec.embedding_size == config.hidden_size) spec.names.project_in = spec.names.project_out = "";
  return {};
}

Status configure_phi(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_TRY(const bool qk_layernorm, config.get_bool("qk_layernorm", false));
  if (qk_layernorm) {
    return fail(ErrorCode::kUnsupported, "qk_layernorm is true: no published model has it").at("config.json");
  }
  spec.qkv_bias = spec.o_bias = spec.mlp_bias = true;
  return {};
}

Status configure_mixtral(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_biases(config, spec));
  NIBBLE_TRY(spec.num_experts, config.get_size("num_local_experts", 8));
  NIBBLE_TRY(spec.experts_per_token, config.get_size("num_experts_per_tok", 2));
  if (spec.experts_per_token == 0 || spec.experts_per_token > spec.num_experts) {
    return fail(ErrorCode::kInvalidArgument, "num_experts_per_tok is {} of {} experts",
                spec.experts_per_token, spec.num_experts)
        .at("config.json");
  }
  return {};
}

// ALiBi (arXiv:2108.12409): slope 2^(-bias_max * i / n) for head i = 1..n. A number of heads that is no
// power of two takes every second slope of the next power, then the others.
std::vector<float> alibi_slopes(size_t num_heads, double bias_max) {
  size_t power = 1;
  while (power < num_heads) power *= 2;
  std::vector<float> all(power);
  for (size_t i = 0; i < power; ++i) {
    all[i] =
        static_cast<float>(std::exp2(-bias_max * static_cast<double>(i + 1) / static_cast<double>(power)));
  }
  if (power == num_heads) return all;
  std::vector<float> slopes;
  for (size_t i = 1; i < power; i += 2) slopes.push_back(all[i]);
  for (size_t i = 0; i < power; i += 2) slopes.push_back(all[i]);
  slopes.resize(num_heads);
  return slopes;
}

Status configure_mpt(const PretrainedConfig& config, DecoderSpec& spec) {
  const auto found = config.json.find("attn_config");
  const Json attention = found != config.json.end() && found->is_object() ? *found : Json::object();
  const auto number = [&](const char* key, double fallback) {
    const auto value = attention.find(key);
    return value != attention.end() && value->is_number() ? value->get<double>() : fallback;
  };
  if (const auto alibi = attention.find("alibi"); alibi != attention.end() && *alibi == false) {
    return fail(ErrorCode::kUnsupported, "attn_config.alibi is false: MPT with learned positions")
        .at("config.json");
  }
  spec.alibi_slopes = alibi_slopes(config.num_attention_heads, number("alibi_bias_max", 8));
  spec.clip_qkv = static_cast<float>(number("clip_qkv", 0));
  spec.attention_scale = static_cast<float>(number("softmax_scale", spec.attention_scale));
  return {};
}

constexpr BlockNames kSandwichNorms = {
    .attention_out_norm = "post_attention_layernorm",
    .mlp_in_norm = "pre_feedforward_layernorm",
    .mlp_out_norm = "post_feedforward_layernorm",
};

constexpr BlockNames with_qk_norms(BlockNames block) {
  block.q_norm = "self_attn.q_norm";
  block.k_norm = "self_attn.k_norm";
  return block;
}

constexpr std::array kArchitectures = {
    Architecture{.model_type = "llama", .configure = configure_biases},
    Architecture{.model_type = "mistral", .configure = configure_biases},
    Architecture{.model_type = "qwen2", .qkv_bias = true},
    Architecture{.model_type = "qwen3", .block = with_qk_norms({}), .configure = configure_biases},
    Architecture{.model_type = "gemma", .norm_adds_one = true, .configure = configure_gemma},
    Architecture{.model_type = "gemma2",
                 .block = kSandwichNorms,
                 .norm_adds_one = true,
                 .configure = configure_gemma2},
    Architecture{.model_type = "gemma3_text",
                 .block = with_qk_norms(kSandwichNorms),
                 .norm_adds_one = true,
                 .configure = configure_gemma2},
    Architecture{.model_type = "phi3",
                 .block = {.qkv = "self_attn.qkv_proj", .gate_up = "mlp.gate_up_proj"},
                 .configure = configure_biases},
    Architecture{
        .model_type = "phi",
        .final_norm = "model.final_layernorm",
        .block = {.mlp_in_norm = "", .o = "self_attn.dense", .gate = "", .up = "mlp.fc1", .down = "mlp.fc2"},
        .norm = NormKind::kLayer,
        .norm_bias = true,
        .parallel = true,
        .head_bias = true,
        .configure = configure_phi},
    Architecture{.model_type = "mixtral",
                 .block = {.gate = "w1",
                           .up = "w3",
                           .down = "w2",
                           .router = "block_sparse_moe.gate",
                           .experts = "block_sparse_moe.experts"},
                 .configure = configure_mixtral},
    Architecture{.model_type = "mpt",
                 .prefix = "transformer.",
                 .embed = "transformer.wte",
                 .layers = "transformer.blocks",
                 .final_norm = "transformer.norm_f",
                 .block = {.attention_in_norm = "norm_1",
                           .mlp_in_norm = "norm_2",
                           .qkv = "attn.Wqkv",
                           .o = "attn.out_proj",
                           .gate = "",
                           .up = "ffn.up_proj",
                           .down = "ffn.down_proj"},
                 .norm = NormKind::kLayer,
                 .rotary = false,
                 .configure = configure_mpt},
    Architecture{.model_type = "opt",
                 .embed = "model.decoder.embed_tokens",
                 .positions = "model.decoder.embed_positions",
                 .position_offset = 2,
                 .project_in = "model.decoder.project_in",
                 .project_out = "model.decoder.project_out",
                 .layers = "model.decoder.layers",
                 .final_norm = "model.decoder.final_layer_norm",
                 .block = {.attention_in_norm = "self_attn_layer_norm",
                           .mlp_in_norm = "final_layer_norm",
                           .o = "self_attn.out_proj",
                           .gate = "",
                           .up = "fc1",
                           .down = "fc2"},
                 .norm = NormKind::kLayer,
                 .norm_bias = true,
                 .rotary = false,
                 .configure = configure_opt},
};

constexpr std::array kActivations = {
    std::pair{std::string_view("silu"), kernels::Activation::kSilu},
    std::pair{std::string_view("swish"), kernels::Activation::kSilu},
    std::pair{std::string_view("gelu"), kernels::Activation::kGelu},
    std::pair{std::string_view("gelu_pytorch_tanh"), kernels::Activation::kGeluTanh},
    std::pair{std::string_view("gelu_new"), kernels::Activation::kGeluTanh},
    std::pair{std::string_view("gelu_fast"), kernels::Activation::kGeluTanh},
    std::pair{std::string_view("relu"), kernels::Activation::kRelu},
};

template <class Table, class Name>
std::string names_of(const Table& table, Name name) {
  std::string names;
  for (const auto& row : table) names += fmt::format("{}{}", names.empty() ? "" : ", ", name(row));
  return names;
}

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

Expected<kernels::Activation> activation_from_name(std::string_view name) {
  for (const auto& [known, activation] : kActivations) {
    if (known == name) return activation;
  }
  return fail(ErrorCode::kUnsupported, "hidden_act \"{}\"; known are {}", name,
              names_of(kActivations, [](const auto& row) { return row.first; }))
      .at("config.json");
}

Expected<DecoderSpec> make_decoder_spec(const PretrainedConfig& config) {
  const Architecture* architecture = nullptr;
  for (const Architecture& row : kArchitectures) {
    if (row.model_type == config.model_type) architecture = &row;
  }
  if (architecture == nullptr) {
    return fail(ErrorCode::kUnsupported, "model_type \"{}\" is not known", config.model_type)
        .at("config.json")
        .with_fix(fmt::format("Nibble runs: {}.", names_of(kArchitectures, [](const Architecture& row) {
                                return row.model_type;
                              })));
  }
  DecoderSpec spec;
  spec.names = *architecture;
  NIBBLE_TRY(spec.activation, activation_from_name(config.hidden_act));
  spec.attention_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config.head_dim)));
  spec.embedding_size = config.hidden_size;
  spec.qkv_bias = architecture->qkv_bias;
  for (size_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const bool sliding = config.layer_types[layer] == "sliding_attention";
    spec.window.push_back(sliding ? config.sliding_window.value_or(0) : 0);
    spec.sliding_rope.push_back(sliding && config.rope_sliding.has_value());
  }
  if (architecture->configure != nullptr) NIBBLE_RETURN_IF_ERROR(architecture->configure(config, spec));
  return spec;
}

}  // namespace nibble
