// Mixtures of experts, and the latent attention that comes with DeepSeek's.

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <set>

#include "nibble/models/configure_architecture.h"

namespace nibble {
namespace {

// Of all layers together, before any tensor confirms the numbers; Kimi K2 has 23,424.
constexpr size_t kMostExperts = 100'000;

// The first of `keys` that the file has: no value of a class is ever taken for a size.
Expected<size_t> required_size(const PretrainedConfig& config, std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    NIBBLE_TRY(const size_t size, config.get_size(key, 0));
    if (size > 0) return size;
  }
  return fail(ErrorCode::kInvalidArgument, "{} is missing or 0; it must be a positive integer", *keys.begin())
      .at("config.json");
}

Status refuse(std::string_view key, std::string_view value, std::string_view why) {
  return fail(ErrorCode::kUnsupported, "{} is {}: {}", key, value, why).at("config.json");
}

Status read_experts(const PretrainedConfig& config, std::initializer_list<std::string_view> count_keys,
                    DecoderSpec& spec) {
  NIBBLE_TRY(spec.num_experts, required_size(config, count_keys));
  NIBBLE_TRY(spec.experts_per_token, required_size(config, {"num_experts_per_tok"}));
  if (spec.num_experts > kMostExperts / config.num_hidden_layers) {
    return fail(ErrorCode::kInvalidArgument, "{} is {} in {} layers; at most {} experts can be loaded",
                *count_keys.begin(), spec.num_experts, config.num_hidden_layers, kMostExperts)
        .at("config.json");
  }
  if (spec.experts_per_token <= spec.num_experts) return {};
  return fail(ErrorCode::kInvalidArgument, "num_experts_per_tok is {} of {} experts", spec.experts_per_token,
              spec.num_experts)
      .at("config.json");
}

// Layers that have a plain MLP, by number (Qwen).
Expected<std::set<size_t>> read_mlp_only_layers(const PretrainedConfig& config) {
  std::set<size_t> layers;
  const auto found = config.json.find("mlp_only_layers");
  if (found == config.json.end() || found->is_null()) return layers;
  const bool valid = found->is_array() && std::all_of(found->begin(), found->end(), [](const Json& layer) {
                       return layer.is_number_unsigned();
                     });
  if (!valid) {
    return fail(ErrorCode::kInvalidArgument, "mlp_only_layers must be a list of layer numbers")
        .at("config.json");
  }
  for (const Json& layer : *found) layers.insert(layer.get<size_t>());
  return layers;
}

Status configure_qwen_experts(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(read_experts(config, {"num_experts", "num_local_experts"}, spec));
  NIBBLE_TRY(spec.expert_size, required_size(config, {"moe_intermediate_size"}));
  NIBBLE_TRY(spec.router.normalized, config.get_bool("norm_topk_prob", false));
  NIBBLE_TRY(const size_t step, config.get_size("decoder_sparse_step", 1));
  if (step == 0) {
    return fail(ErrorCode::kInvalidArgument, "decoder_sparse_step is 0; it must be positive")
        .at("config.json");
  }
  NIBBLE_TRY(const std::set<size_t> dense, read_mlp_only_layers(config));
  for (size_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    spec.sparse.push_back((layer + 1) % step == 0 && !dense.contains(layer));
  }
  return {};
}

// Groups of experts: `rank` as in RouterRule.
Status read_groups(const PretrainedConfig& config, size_t rank, DecoderSpec& spec) {
  NIBBLE_TRY(const size_t groups, required_size(config, {"n_group"}));
  NIBBLE_TRY(const size_t chosen, required_size(config, {"topk_group"}));
  const size_t size = spec.num_experts / groups;  // of a group
  if (spec.num_experts % groups != 0 || size < rank || chosen > groups ||
      chosen * size < spec.experts_per_token) {
    return fail(ErrorCode::kInvalidArgument,
                "n_group is {} and topk_group {}, which does not go with {} of {} experts for a token",
                groups, chosen, spec.experts_per_token, spec.num_experts)
        .at("config.json");
  }
  spec.router.num_groups = groups;
  spec.router.groups_chosen = chosen;
  spec.router.group_rank = rank;
  return {};
}

// Experts of DeepSeek-V2 and V3 but for the groups.
Status configure_deepseek_experts(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(read_experts(config, {"n_routed_experts"}, spec));
  NIBBLE_TRY(spec.expert_size, required_size(config, {"moe_intermediate_size"}));
  NIBBLE_TRY(const size_t shared, config.get_size("n_shared_experts", 0));
  spec.shared_expert_size = shared * spec.expert_size;
  if (shared == 0) spec.names.block.shared_expert = "";
  NIBBLE_TRY(const double scale,
             config.get_number("routed_scaling_factor", config.model_type == "deepseek_v3" ? 2.5 : 1.0));
  if (!(scale > 0.0) || !std::isfinite(scale)) {
    return fail(ErrorCode::kInvalidArgument, "routed_scaling_factor is {}; it must be positive", scale)
        .at("config.json");
  }
  spec.router.scale = static_cast<float>(scale);
  NIBBLE_TRY(const size_t first, config.get_size("first_k_dense_replace", 0));
  NIBBLE_TRY(const size_t every, config.get_size("moe_layer_freq", 1));
  if (every == 0) {
    return fail(ErrorCode::kInvalidArgument, "moe_layer_freq is 0; it must be positive").at("config.json");
  }
  for (size_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    spec.sparse.push_back(layer >= first && layer % every == 0);
  }
  return {};
}

Status configure_latent_attention(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_TRY(spec.kv_rank, required_size(config, {"kv_lora_rank"}));
  NIBBLE_TRY(spec.latent_bias, config.get_bool("attention_bias", false));
  spec.o_bias = spec.latent_bias;
  BlockNames& names = spec.names.block;
  const auto q_rank = config.json.find("q_lora_rank");
  if (q_rank != config.json.end() && q_rank->is_null()) {
    names.q_a = names.q_a_norm = names.q_b = "";
  } else {
    NIBBLE_TRY(spec.q_rank, required_size(config, {"q_lora_rank"}));
    names.q = "";
  }
  // YaRN with mscale_all_dim sharpens attention by the square of what it does to long contexts.
  const RopeParameters& rope = config.rope;
  const double mscale = rope.mscale_all_dim.value_or(0.0);
  if (rope.rope_type != "default" && mscale != 0.0 && rope.factor > 1.0) {
    const double factor = 0.1 * mscale * std::log(rope.factor) + 1.0;
    spec.attention_scale *= static_cast<float>(factor * factor);
  }
  return {};
}

}  // namespace

Status configure_mixtral(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_biases(config, spec));
  NIBBLE_RETURN_IF_ERROR(read_experts(config, {"num_local_experts"}, spec));
  spec.expert_size = config.intermediate_size;
  spec.sparse.assign(config.num_hidden_layers, true);
  return {};
}

Status configure_qwen2_moe(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_TRY(spec.qkv_bias, config.get_bool("qkv_bias", true));
  NIBBLE_TRY(spec.shared_expert_size, required_size(config, {"shared_expert_intermediate_size"}));
  return configure_qwen_experts(config, spec);
}

Status configure_qwen3_moe(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_biases(config, spec));
  return configure_qwen_experts(config, spec);
}

Status configure_deepseek_v2(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_latent_attention(config, spec));
  NIBBLE_RETURN_IF_ERROR(configure_deepseek_experts(config, spec));
  NIBBLE_TRY(spec.mlp_bias, config.get_bool("mlp_bias", false));
  NIBBLE_TRY(const bool normalized, config.get_bool("norm_topk_prob", false));
  if (normalized) {
    return refuse("norm_topk_prob", "true", "Transformers and DeepSeek's code do different things with it");
  }
  spec.router.normalized = false;
  NIBBLE_TRY(const std::string scoring, config.get_string("scoring_func", "softmax"));
  if (scoring != "softmax") return refuse("scoring_func", scoring, "a deepseek_v2 has softmax");
  NIBBLE_TRY(const std::string method, config.get_string("topk_method", "greedy"));
  if (method == "greedy") return {};
  if (method == "group_limited_greedy") return read_groups(config, 1, spec);
  return refuse("topk_method", method, "a deepseek_v2 has greedy or group_limited_greedy");
}

Status configure_deepseek_v3(const PretrainedConfig& config, DecoderSpec& spec) {
  NIBBLE_RETURN_IF_ERROR(configure_latent_attention(config, spec));
  NIBBLE_RETURN_IF_ERROR(configure_deepseek_experts(config, spec));
  NIBBLE_TRY(spec.names.rotary_interleaved, config.get_bool("rope_interleave", true));
  NIBBLE_TRY(spec.router.normalized, config.get_bool("norm_topk_prob", true));
  spec.router.sigmoid = true;
  NIBBLE_TRY(const std::string scoring, config.get_string("scoring_func", "sigmoid"));
  if (scoring != "sigmoid") return refuse("scoring_func", scoring, "a deepseek_v3 has sigmoid");
  NIBBLE_TRY(const std::string method, config.get_string("topk_method", "noaux_tc"));
  if (method != "noaux_tc") return refuse("topk_method", method, "a deepseek_v3 has noaux_tc");
  // Layers that predict more than the next token stand behind the model's own; nothing here runs them. One,
  // as in DeepSeekV3Config, where the file does not say how many.
  NIBBLE_TRY(spec.extra_layers, config.get_size("num_nextn_predict_layers", 1));
  return read_groups(config, 2, spec);
}

}  // namespace nibble
