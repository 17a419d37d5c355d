#include "nibble/models/load_weights.h"

#include <algorithm>

#include "nibble/base/cpu_target.h"

namespace nibble {

std::vector<std::string> linears_of_block(const BlockModules& modules) {
  std::vector<std::string> names = {modules.q,    modules.k,   modules.v,    modules.qkv, modules.q_a,
                                    modules.kv_a, modules.q_b, modules.kv_b, modules.o};
  for (const MlpModules& mlp : modules.mlps) {
    names.insert(names.end(), {mlp.gate, mlp.up, mlp.gate_up, mlp.down});
  }
  std::erase(names, std::string());
  return names;
}

ActivationBits activation_bits(const BlockModules& modules, std::string_view module) {
  // Tiles multiply two rows of bytes with a scale for each 128 inputs faster than one with a scale for
  // each 32.
  if (cpu_target() == CpuTarget::kAmx) return ActivationBits::k16;
  const auto fine = {std::string_view(modules.q),   std::string_view(modules.k),
                     std::string_view(modules.v),   std::string_view(modules.qkv),
                     std::string_view(modules.q_a), std::string_view(modules.kv_a),
                     std::string_view(modules.q_b), std::string_view(modules.kv_b)};
  return std::ranges::find(fine, module) != fine.end() ? ActivationBits::k16 : ActivationBits::k8;
}

std::string name_in_file(const DecoderSpec& spec, std::string_view full, bool prefix_missing) {
  if (prefix_missing && full.starts_with(spec.names.prefix)) full.remove_prefix(spec.names.prefix.size());
  return std::string(full);
}

BlockModules block_modules(const DecoderSpec& spec, size_t layer, bool prefix_missing) {
  const BlockNames& names = spec.names.block;
  BlockModules modules;
  modules.prefix = fmt::format("{}.{}.", name_in_file(spec, spec.names.layers, prefix_missing), layer);
  const auto name = [&](std::string_view in, std::string_view module) {
    return module.empty() ? std::string() : fmt::format("{}{}{}", modules.prefix, in, module);
  };
  modules.qkv = name("", names.qkv);
  if (names.qkv.empty()) {
    modules.q = name("", names.q);
    modules.k = name("", names.k);
    modules.v = name("", names.v);
    modules.q_a = name("", names.q_a);
    modules.q_b = name("", names.q_b);
    modules.kv_a = name("", names.kv_a);
    modules.kv_b = name("", names.kv_b);
  }
  modules.o = name("", names.o);
  if (!spec.is_sparse(layer)) {
    MlpModules& mlp = modules.mlps.emplace_back();
    mlp.gate_up = name("", names.gate_up);
    if (names.gate_up.empty()) {
      mlp.gate = name("", names.gate);
      mlp.up = name("", names.up);
    }
    mlp.down = name("", names.down);
    mlp.scaled_activation = name("", names.scaled_activation);
    return modules;
  }
  modules.router = name("", names.router);
  modules.shared_gate = name("", names.shared_gate);
  const auto add_expert = [&](const std::string& in) {
    modules.mlps.push_back({.gate = name(in, names.expert_gate),
                            .up = name(in, names.expert_up),
                            .gate_up = {},
                            .down = name(in, names.expert_down),
                            .scaled_activation = {}});
  };
  for (size_t i = 0; i < spec.num_experts; ++i) add_expert(fmt::format("{}.{}.", names.experts, i));
  if (!names.shared_expert.empty()) add_expert(fmt::format("{}.", names.shared_expert));
  return modules;
}

namespace {

// DeepSeek's code gives the norms of its short vectors no eps: they have the default of the class.
constexpr float kLatentNormEps = 1e-6f;

// A norm over hidden_size, or one of queries and keys.
Expected<std::unique_ptr<Norm>> load_norm(const DecoderSpec& spec, const PretrainedConfig& config,
                                          const std::string& module, WeightLoader& loader) {
  const auto eps = static_cast<float>(config.norm_eps);
  if (spec.names.norm_weight) return loader.norm(module, spec.names.norm, eps);
  auto norm = std::make_unique<Norm>();
  norm->kind = spec.names.norm;
  norm->weight.assign(config.hidden_size, 1.f);
  norm->eps = eps;
  return norm;
}

}  // namespace

Status load_block_norms(const DecoderSpec& spec, const PretrainedConfig& config, size_t layer,
                        const BlockModules& modules, WeightLoader& loader, DecoderBlock& block) {
  block.window = spec.window[layer];
  block.sliding_rope = spec.sliding_rope[layer];
  block.rotates = spec.rotates[layer];
  const BlockNames& names = spec.names.block;
  const auto norm = [&](std::string_view name, std::unique_ptr<Norm>& target) -> Status {
    if (name.empty()) return {};
    NIBBLE_TRY(target, load_norm(spec, config, modules.prefix + std::string(name), loader));
    return {};
  };
  NIBBLE_RETURN_IF_ERROR(norm(names.attention_in_norm, block.attention_in_norm));
  NIBBLE_RETURN_IF_ERROR(norm(names.attention_out_norm, block.attention_out_norm));
  NIBBLE_RETURN_IF_ERROR(norm(names.mlp_in_norm, block.mlp_in_norm));
  NIBBLE_RETURN_IF_ERROR(norm(names.mlp_out_norm, block.mlp_out_norm));
  NIBBLE_RETURN_IF_ERROR(norm(names.q_a_norm, block.q_a_norm));
  NIBBLE_RETURN_IF_ERROR(norm(names.kv_a_norm, block.kv_a_norm));
  for (Norm* const latent : {block.q_a_norm.get(), block.kv_a_norm.get()}) {
    if (latent != nullptr) latent->eps = kLatentNormEps;
  }
  if (!modules.router.empty() && !names.router_correction.empty()) {
    NIBBLE_TRY(block.router_correction,
               loader.values(fmt::format("{}.{}", modules.router, names.router_correction)));
  }
  const auto heads_norm = [&](std::string_view name, size_t heads, std::unique_ptr<Norm>& target) -> Status {
    if (spec.names.qk_norm != QkNorm::kHeadList || name.empty()) {
      NIBBLE_RETURN_IF_ERROR(norm(name, target));
    } else {
      for (size_t head = 0; head < heads; ++head) {
        std::unique_ptr<Norm> one;
        NIBBLE_RETURN_IF_ERROR(norm(fmt::format("{}.norms.{}", name, head), one));
        if (target == nullptr) {
          target = std::move(one);
        } else {
          target->weight.insert(target->weight.end(), one->weight.begin(), one->weight.end());
        }
      }
    }
    if (target != nullptr && spec.names.qk_norm != QkNorm::kAllHeads) target->group = config.head_dim;
    return {};
  };
  NIBBLE_RETURN_IF_ERROR(heads_norm(names.q_norm, config.num_attention_heads, block.q_norm));
  return heads_norm(names.k_norm, config.num_key_value_heads, block.k_norm);
}

Expected<DecoderWeights> load_frame(const DecoderSpec& spec, const PretrainedConfig& config,
                                    bool prefix_missing, WeightLoader& loader) {
  const auto name = [&](std::string_view full) { return name_in_file(spec, full, prefix_missing); };
  DecoderWeights weights;
  NIBBLE_TRY(weights.embedding, loader.embedding(name(spec.names.embed)));
  if (!spec.names.positions.empty()) {
    NIBBLE_TRY(weights.positions, loader.embedding(name(spec.names.positions)));
  }
  std::vector<LinearRequest> projections;
  if (!spec.names.project_in.empty()) {
    projections.push_back({name(spec.names.project_in), &weights.project_in});
  }
  if (!spec.names.project_out.empty()) {
    projections.push_back({name(spec.names.project_out), &weights.project_out});
  }
  NIBBLE_RETURN_IF_ERROR(loader.linears(projections));
  if (!spec.names.embed_norm.empty()) {
    NIBBLE_TRY(weights.embed_norm, load_norm(spec, config, name(spec.names.embed_norm), loader));
  }
  if (spec.final_norm) {
    NIBBLE_TRY(weights.final_norm, load_norm(spec, config, name(spec.names.final_norm), loader));
  }
  if (!spec.names.rotary) return weights;
  const auto rotation = [&](const RopeParameters& parameters) {
    return at("config.json",
              RotaryEmbedding::create(parameters, config.rope_head_dim, config.max_position_embeddings));
  };
  NIBBLE_TRY(weights.rope, rotation(config.rope));
  if (config.rope_sliding) {
    NIBBLE_TRY(weights.rope_sliding, rotation(*config.rope_sliding));
  }
  return weights;
}

}  // namespace nibble
