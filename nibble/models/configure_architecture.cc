#include "nibble/models/configure_architecture.h"

#include <cmath>
#include <vector>

namespace nibble {
namespace {

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

Expected<float> read_scale(const PretrainedConfig& config, std::string_view key, double fallback) {
  NIBBLE_TRY(const double value, config.get_number(key, fallback));
  const auto scale = static_cast<float>(value);
  if (std::isfinite(scale) && scale != 0.f) return scale;
  return fail(ErrorCode::kInvalidArgument, "{} is {}; it must be a number other than 0", key, value)
      .at("config.json");
}

}  // namespace

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

// null means none; where the key is missing the class has a default.
Expected<float> soft_cap(const PretrainedConfig& config, const char* key, float of_class) {
  if (!config.json.contains(key)) return of_class;
  NIBBLE_TRY(const auto cap, config.get_optional_number(key));
  return static_cast<float>(cap.value_or(0));
}

// Gemma 2 and 3: both scale queries by a number of their own and may cap scores and logits.
Status configure_gemma2(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_gemma(config, spec));
  NIBBLE_TRY(const bool bidirectional, config.get_bool("use_bidirectional_attention", false));
  if (bidirectional) {
    return fail(ErrorCode::kUnsupported,
                "use_bidirectional_attention is true: an encoder, such as EmbeddingGemma, writes no text")
        .at("config.json");
  }
  NIBBLE_TRY(const double query_scalar, config.get_number("query_pre_attn_scalar", 256));
  if (!(query_scalar > 0)) {
    return fail(ErrorCode::kInvalidArgument, "query_pre_attn_scalar is {}; it must be positive", query_scalar)
        .at("config.json");
  }
  spec.attention_scale = static_cast<float>(1 / std::sqrt(query_scalar));
  const bool is_gemma2 = config.model_type == "gemma2";
  NIBBLE_TRY(spec.attention_soft_cap, soft_cap(config, "attn_logit_softcapping", is_gemma2 ? 50.f : 0.f));
  NIBBLE_TRY(spec.final_soft_cap, soft_cap(config, "final_logit_softcapping", is_gemma2 ? 30.f : 0.f));
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

// Granite: four numbers that others have as 1.
Status configure_granite(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_biases(config, spec));
  NIBBLE_TRY(spec.embedding_scale, read_scale(config, "embedding_multiplier", 1));
  NIBBLE_TRY(spec.residual_scale, read_scale(config, "residual_multiplier", 1));
  NIBBLE_TRY(spec.attention_scale, read_scale(config, "attention_multiplier", 1));
  NIBBLE_TRY(const float divisor, read_scale(config, "logits_scaling", 1));
  spec.logit_scale = 1 / divisor;
  return {};
}

Status configure_cohere(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_biases(config, spec));
  NIBBLE_TRY(spec.logit_scale, read_scale(config, "logit_scale", 0.0625));
  NIBBLE_TRY(const bool qk_norm, config.get_bool("use_qk_norm", false));
  if (!qk_norm) spec.names.block.q_norm = spec.names.block.k_norm = "";
  return {};
}

// Cohere 2 rotates in the layers with a window only.
Status configure_cohere2(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_cohere(config, spec));
  for (size_t layer = 0; layer < spec.window.size(); ++layer) spec.rotates[layer] = spec.window[layer] > 0;
  return {};
}

// SmolLM 3: no_rope_layers has a 1 for each layer that rotates; without it every fourth layer does not.
Status configure_smollm3(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_biases(config, spec));
  const auto found = config.json.find("no_rope_layers");
  if (found != config.json.end() && !found->is_null()) {
    const bool fits = found->is_array() && found->size() == spec.rotates.size();
    for (size_t layer = 0; fits && layer < found->size(); ++layer) {
      const Json& rotates = (*found)[layer];
      if (rotates != 0 && rotates != 1) break;
      spec.rotates[layer] = rotates == 1;
      if (layer + 1 == found->size()) return {};
    }
    return fail(ErrorCode::kInvalidArgument, "no_rope_layers must hold a 0 or a 1 for each of {} layers",
                spec.rotates.size())
        .at("config.json");
  }
  NIBBLE_TRY(const size_t interval, config.get_size("no_rope_layer_interval", 4));
  if (interval == 0) {
    return fail(ErrorCode::kInvalidArgument, "no_rope_layer_interval is 0; it must be positive")
        .at("config.json");
  }
  for (size_t layer = 0; layer < spec.rotates.size(); ++layer) {
    spec.rotates[layer] = (layer + 1) % interval != 0;
  }
  return {};
}

Status configure_gpt_neox(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_TRY(const bool attention_bias, config.get_bool("attention_bias", true));
  spec.qkv_bias = spec.o_bias = attention_bias;
  spec.mlp_bias = true;
  NIBBLE_TRY(spec.names.parallel, config.get_bool("use_parallel_residual", true));
  return {};
}

Status configure_gptj(const PretrainedConfig& /*config*/, DecoderSpec& spec) {
  spec.mlp_bias = true;
  return {};
}

Status configure_all_biases(const PretrainedConfig& /*config*/, DecoderSpec& spec) {
  spec.qkv_bias = spec.o_bias = spec.mlp_bias = true;
  return {};
}

// GPT-2 and its multi-query form.
Status configure_gpt2(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_all_biases(config, spec));
  NIBBLE_TRY(const bool scaled, config.get_bool("scale_attn_weights", true));
  if (!scaled) spec.attention_scale = 1.f;
  for (const std::string_view key : {"scale_attn_by_inverse_layer_idx", "add_cross_attention"}) {
    NIBBLE_TRY(const bool set, config.get_bool(key, false));
    if (!set) continue;
    return fail(ErrorCode::kUnsupported, "{} is true: such a model was never published", key)
        .at("config.json");
  }
  return {};
}

Status configure_bloom(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_all_biases(config, spec));
  NIBBLE_TRY(const bool behind_norm, config.get_bool("apply_residual_connection_post_layernorm", false));
  if (behind_norm) {
    return fail(ErrorCode::kUnsupported, "apply_residual_connection_post_layernorm is true")
        .at("config.json")
        .with_fix("Published BLOOM models have it false; others cannot be run yet.");
  }
  spec.alibi_slopes = alibi_slopes(config.num_attention_heads, 8);
  return {};
}

// Three kinds under one model_type: Falcon RW (sequential, ALiBi), 7B (parallel, one norm, one key head) and
// 40B and later (parallel, a norm for each branch or one).
Status configure_falcon(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_TRY(const bool bias, config.get_bool("bias", false));
  NIBBLE_TRY(const bool alibi, config.get_bool("alibi", false));
  NIBBLE_TRY(const bool new_decoder, config.get_bool("new_decoder_architecture", false));
  NIBBLE_TRY(const bool parallel, config.get_bool("parallel_attn", true));
  NIBBLE_TRY(const auto norms, config.get_optional_number("num_ln_in_parallel_attn"));
  spec.qkv_bias = spec.o_bias = spec.mlp_bias = bias;
  spec.names.parallel = new_decoder || parallel;
  BlockNames& names = spec.names.block;
  if (new_decoder && norms.value_or(2) == 2) {
    names.attention_in_norm = "ln_attn";
    names.mlp_in_norm = "ln_mlp";
  } else if (spec.names.parallel) {
    names.mlp_in_norm = "";
  }
  if (!alibi) return {};
  spec.names.rotary = false;
  spec.alibi_slopes = alibi_slopes(config.num_attention_heads, 8);
  spec.alibi_in_bfloat16 = true;
  return {};
}

Status configure_stablelm(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_TRY(spec.qkv_bias, config.get_bool("use_qkv_bias", false));
  NIBBLE_TRY(spec.names.parallel, config.get_bool("use_parallel_residual", false));
  if (spec.names.parallel) spec.names.block.mlp_in_norm = "";
  NIBBLE_TRY(const bool qk_norm, config.get_bool("qk_layernorm", false));
  if (!qk_norm) spec.names.block.q_norm = spec.names.block.k_norm = "";
  return {};
}

Status configure_starcoder2(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_TRY(const bool bias, config.get_bool("use_bias", true));
  spec.qkv_bias = spec.o_bias = spec.mlp_bias = bias;
  return {};
}

Status configure_olmo(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_biases(config, spec));
  NIBBLE_TRY(const auto clip, config.get_optional_number("clip_qkv"));
  spec.clip_qkv = static_cast<float>(clip.value_or(0));
  return {};
}

Status configure_glm4(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_TRY(spec.qkv_bias, config.get_bool("attention_bias", false));
  return {};
}

}  // namespace nibble
