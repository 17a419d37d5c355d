#include "nibble/models/module_slots.h"

#include <algorithm>
#include <charconv>

#include "nibble/base/log.h"
#include "nibble/base/text.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

// Buffers that older versions of the libraries saved beside the weights.
constexpr std::string_view kIgnoredSuffixes[] = {".rotary_emb.inv_freq", ".attn.masked_bias", ".attn.bias"};

bool is_ignored(std::string_view name) {
  return std::any_of(std::begin(kIgnoredSuffixes), std::end(kIgnoredSuffixes),
                     [&](std::string_view suffix) { return name.ends_with(suffix); });
}

// Whether a tensor is one of a layer behind the model's own. Numbers from config.json are compared, never
// counted up to.
bool is_extra(std::string_view name, const DecoderSpec& spec) {
  std::string_view layers = spec.names.layers;
  if (!name.starts_with(layers)) layers.remove_prefix(spec.names.prefix.size());  // see prefix_is_missing()
  if (spec.extra_layers == 0 || !name.starts_with(layers)) return false;
  name.remove_prefix(layers.size());
  if (!name.starts_with('.')) return false;
  size_t layer = 0;
  const auto end = std::from_chars(name.data() + 1, name.data() + name.size(), layer);
  const size_t own = spec.window.size();
  return end.ec == std::errc() && std::string_view(end.ptr, name.data() + name.size()).starts_with('.') &&
         layer >= own && layer - own < spec.extra_layers;
}

class SlotList {
 public:
  SlotList(const DecoderSpec& spec, bool prefix_missing)
      : prefix_(prefix_missing ? spec.names.prefix : std::string_view()),
        norm_weight_(spec.names.norm_weight) {}

  void add(std::string_view name, ModuleRole role, Shape shape, bool bias_required = false) {
    if (name.empty() || (role == ModuleRole::kNorm && !norm_weight_)) return;
    slots_.push_back({in_file(name), role, std::move(shape), bias_required});
  }
  std::string in_file(std::string_view name) const {
    if (!prefix_.empty() && name.starts_with(prefix_)) name.remove_prefix(prefix_.size());
    return std::string(name);
  }
  ModuleSlot& last() { return slots_.back(); }

  std::vector<ModuleSlot> take() { return std::move(slots_); }

 private:
  const std::string_view prefix_;
  const bool norm_weight_;
  std::vector<ModuleSlot> slots_;
};

}  // namespace

std::vector<ModuleSlot> module_slots(const DecoderSpec& spec, const PretrainedConfig& config,
                                     bool prefix_missing) {
  const Architecture& names = spec.names;
  const BlockNames& block = names.block;
  const size_t hidden = config.hidden_size;
  const size_t q_size = config.num_attention_heads * config.head_dim;
  const size_t kv_size = config.num_key_value_heads * config.head_dim;
  const size_t out_size = config.num_attention_heads * config.value_head_dim;

  SlotList slots(spec, prefix_missing);
  slots.add(names.embed, ModuleRole::kEmbedding, {config.vocab_size, spec.embedding_size});
  slots.add(names.embed_norm, ModuleRole::kNorm, {hidden}, names.norm_bias);
  slots.add(names.positions, ModuleRole::kEmbedding,
            {config.max_position_embeddings + names.position_offset, hidden});
  slots.add(names.project_in, ModuleRole::kLinear, {hidden, spec.embedding_size});
  for (size_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const auto add = [&](std::string_view name, ModuleRole role, Shape shape, bool bias_required = false) {
      if (name.empty()) return;
      slots.add(fmt::format("{}.{}.{}", names.layers, layer, name), role, std::move(shape), bias_required);
    };
    add(block.attention_in_norm, ModuleRole::kNorm, {hidden}, names.norm_bias);
    if (block.qkv.empty()) {
      add(block.q, ModuleRole::kLinear, {q_size, hidden}, spec.qkv_bias);
      add(block.k, ModuleRole::kLinear, {kv_size, hidden}, spec.qkv_bias);
      add(block.v, ModuleRole::kLinear, {kv_size, hidden}, spec.qkv_bias);
      add(block.q_a, ModuleRole::kLinear, {spec.q_rank, hidden}, spec.latent_bias);
      add(block.kv_a, ModuleRole::kLinear, {spec.kv_rank + config.rope_head_dim, hidden}, spec.latent_bias);
      add(block.q_a_norm, ModuleRole::kNorm, {spec.q_rank});
      add(block.q_b, ModuleRole::kLinear, {q_size, spec.q_rank});
      add(block.kv_a_norm, ModuleRole::kNorm, {spec.kv_rank});
      // Of each head the part of the key that is not rotated, and the value.
      const size_t expanded = config.head_dim - config.rope_head_dim + config.value_head_dim;
      add(block.kv_b, ModuleRole::kLinear, {config.num_attention_heads * expanded, spec.kv_rank});
    } else {
      add(block.qkv, ModuleRole::kLinear, {q_size + 2 * kv_size, hidden}, spec.qkv_bias);
    }
    const auto add_heads_norm = [&](std::string_view name, size_t heads) {
      if (name.empty()) return;
      switch (names.qk_norm) {
        case QkNorm::kHead:
          return add(name, ModuleRole::kNorm, {config.head_dim});
        case QkNorm::kEachHead:
          return add(name, ModuleRole::kNorm, {heads, config.head_dim});
        case QkNorm::kAllHeads:
          return add(name, ModuleRole::kNorm, {heads * config.head_dim});
        case QkNorm::kHeadList:
          for (size_t head = 0; head < heads; ++head) {
            add(fmt::format("{}.norms.{}", name, head), ModuleRole::kNorm, {config.head_dim});
          }
      }
    };
    add_heads_norm(block.q_norm, config.num_attention_heads);
    add_heads_norm(block.k_norm, config.num_key_value_heads);
    add(block.o, ModuleRole::kLinear, {hidden, out_size}, spec.o_bias);
    add(block.attention_out_norm, ModuleRole::kNorm, {hidden}, names.norm_bias);
    add(block.mlp_in_norm, ModuleRole::kNorm, {hidden}, names.norm_bias);
    if (spec.is_sparse(layer)) {
      add(block.router, ModuleRole::kRouter, {spec.num_experts, hidden});
      slots.last().correction = block.router_correction;
      const auto add_expert = [&](const std::string& in, size_t inner) {
        const auto name = [&](std::string_view module) { return fmt::format("{}.{}", in, module); };
        add(name(block.expert_gate), ModuleRole::kLinear, {inner, hidden}, spec.mlp_bias);
        add(name(block.expert_up), ModuleRole::kLinear, {inner, hidden}, spec.mlp_bias);
        add(name(block.expert_down), ModuleRole::kLinear, {hidden, inner}, spec.mlp_bias);
      };
      for (size_t expert = 0; expert < spec.num_experts; ++expert) {
        add_expert(fmt::format("{}.{}", block.experts, expert), spec.expert_size);
      }
      add(block.shared_gate, ModuleRole::kRouter, {1, hidden});
      if (!block.shared_expert.empty()) {
        add_expert(std::string(block.shared_expert), spec.shared_expert_size);
      }
    } else {
      const size_t inner = config.intermediate_size;
      if (block.gate_up.empty()) {
        add(block.gate, ModuleRole::kLinear, {inner, hidden}, spec.mlp_bias);
        add(block.up, ModuleRole::kLinear, {inner, hidden}, spec.mlp_bias);
      } else {
        add(block.gate_up, ModuleRole::kLinear, {2 * inner, hidden}, spec.mlp_bias);
      }
      add(block.down, ModuleRole::kLinear, {hidden, inner}, spec.mlp_bias);
      if (!block.scaled_activation.empty()) {
        slots.last().input_scales =
            slots.in_file(fmt::format("{}.{}.{}.scales", names.layers, layer, block.scaled_activation));
      }
    }
    add(block.mlp_out_norm, ModuleRole::kNorm, {hidden}, names.norm_bias);
  }
  if (spec.final_norm) slots.add(names.final_norm, ModuleRole::kNorm, {hidden}, names.norm_bias);
  slots.add(names.project_out, ModuleRole::kLinear, {spec.embedding_size, hidden});
  if (!config.tie_word_embeddings) {
    slots.add(names.head, ModuleRole::kHead, {config.vocab_size, spec.embedding_size}, names.head_bias);
  }
  return slots.take();
}

bool prefix_is_missing(const Checkpoint& checkpoint, const DecoderSpec& spec) {
  const std::string full = fmt::format("{}.weight", spec.names.embed);
  return checkpoint.find(full) == nullptr &&
         checkpoint.find(std::string_view(full).substr(spec.names.prefix.size())) != nullptr;
}

std::set<std::string> linear_modules(const std::vector<ModuleSlot>& slots) {
  std::set<std::string> names;
  for (const ModuleSlot& slot : slots) {
    if (slot.role == ModuleRole::kLinear) names.insert(slot.name);
  }
  return names;
}

Status check_slots(const Checkpoint& checkpoint, const std::vector<ModuleSlot>& slots,
                   const DecoderSpec& spec, const SlotCheckOptions& options) {
  std::vector<std::string> missing;
  std::set<std::string, std::less<>> used;
  std::string wrong_shape;

  const auto check = [&](const std::string& name, const Shape& shape) {
    const TensorInfo* const info = checkpoint.find(name);
    if (info == nullptr) {
      missing.push_back(name);
      return;
    }
    used.insert(name);
    if (info->shape != shape && wrong_shape.empty()) {
      wrong_shape = fmt::format("{}: shape {}, but config.json asks for {}", name, shape_name(info->shape),
                                shape_name(shape));
    }
  };
  for (const ModuleSlot& slot : slots) {
    const std::string bias = slot.name + ".bias";
    if (slot.bias_required || checkpoint.find(bias) != nullptr) check(bias, {slot.shape.front()});
    if (checkpoint.find(slot.input_scales) != nullptr) check(slot.input_scales, {slot.shape.back()});
    if (!slot.correction.empty())
      check(fmt::format("{}.{}", slot.name, slot.correction), {slot.shape.front()});
    if (!options.quantized.contains(slot.name)) {
      check(slot.name + ".weight", slot.shape);
      continue;
    }
    for (std::string& name : tensors_of_module(checkpoint, slot.name)) used.insert(std::move(name));
  }
  std::vector<std::string> unused;
  size_t extra = 0;
  const std::string tied_head = fmt::format("{}.weight", spec.names.head);
  for (const auto& [name, info] : checkpoint.tensors()) {
    if (used.contains(name) || is_ignored(name) || (options.tied_head && name == tied_head)) continue;
    if (is_extra(name, spec)) {
      ++extra;
    } else {
      unused.push_back(name);
    }
  }
  if (!missing.empty()) {
    std::string message = fmt::format("{} tensors are missing: {}", missing.size(), some_of(missing));
    if (!unused.empty()) message += fmt::format("; {} are not used: {}", unused.size(), some_of(unused));
    return fail(ErrorCode::kDataLoss, "{}", message)
        .with_fix("The checkpoint is incomplete or belongs to another config.json: fetch both again.");
  }
  if (!wrong_shape.empty()) {
    return fail(ErrorCode::kDataLoss, "{}", wrong_shape)
        .with_fix("The weights belong to another model than config.json: fetch both again.");
  }
  if (!unused.empty()) {
    return fail(ErrorCode::kDataLoss, "{} tensors belong to no module of a {}: {}", unused.size(),
                spec.names.model_type, some_of(unused))
        .with_fix(
            "The weights belong to another architecture than config.json says, or an adapter was left in.");
  }
  if (extra > 0) {
    warn("{} tensors of layers behind the model's {} are not used: they predict tokens further ahead", extra,
         spec.window.size());
  }
  return {};
}

}  // namespace nibble
