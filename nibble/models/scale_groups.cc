#include "nibble/models/scale_groups.h"

#include <algorithm>

#include "nibble/base/check.h"

namespace nibble {
namespace {

const Shape& shape_of(const std::vector<ModuleSlot>& slots, const std::string& module) {
  const auto found =
      std::find_if(slots.begin(), slots.end(), [&](const ModuleSlot& slot) { return slot.name == module; });
  NIBBLE_CHECK(found != slots.end());  // block_modules() and module_slots() read one table
  return found->shape;
}

void append(std::vector<std::string>& names, std::initializer_list<std::string> more) {
  for (const std::string& name : more) {
    if (!name.empty()) names.push_back(name);
  }
}

// Whether o reads channel j of the last in_features rows of its producer and nothing else: head by head,
// attention averages v over the tokens.
bool values_reach_output_unchanged(const DecoderSpec& spec, const BlockModules& modules,
                                   const std::vector<ModuleSlot>& slots) {
  if (!modules.kv_b.empty() || spec.clip_qkv > 0.f || (spec.names.qkv_by_head && !modules.qkv.empty()))
    return false;
  const Shape& o = shape_of(slots, modules.o);
  return modules.qkv.empty() ? shape_of(slots, modules.v) == o
                             : shape_of(slots, modules.qkv)[0] == 3 * o[1];  // q has o[1] rows
}

}  // namespace

std::vector<ScaleGroup> scale_groups(const DecoderSpec& spec, const BlockModules& modules,
                                     const std::vector<ModuleSlot>& slots) {
  const BlockNames& names = spec.names.block;
  ScaleGroup attention;
  append(attention.layers, {modules.qkv, modules.q, modules.k, modules.v, modules.q_a, modules.kv_a});
  ScaleGroup mlp;
  for (const MlpModules& expert : modules.mlps) append(mlp.layers, {expert.gate_up, expert.gate, expert.up});
  append(mlp.compensated, {modules.router, modules.shared_gate});

  std::vector<ScaleGroup> groups;
  const auto add_behind_norm = [&](std::string_view norm, ScaleGroup group) {
    if (norm.empty() || !spec.names.norm_weight || !spec.norm_before_branch) return;
    group.norm = modules.prefix + std::string(norm);
    groups.push_back(std::move(group));
  };
  if (spec.names.parallel && names.mlp_in_norm.empty()) {
    attention.layers.insert(attention.layers.end(), mlp.layers.begin(), mlp.layers.end());
    attention.compensated = mlp.compensated;
  }
  add_behind_norm(names.attention_in_norm, std::move(attention));
  if (!modules.q_b.empty()) add_behind_norm(names.q_a_norm, {{}, {}, {}, {modules.q_b}, {}});
  if (!modules.kv_b.empty()) add_behind_norm(names.kv_a_norm, {{}, {}, {}, {modules.kv_b}, {}});
  if (values_reach_output_unchanged(spec, modules, slots)) {
    groups.push_back({{}, modules.qkv.empty() ? modules.v : modules.qkv, {}, {modules.o}, {}});
  }
  add_behind_norm(names.mlp_in_norm, std::move(mlp));
  for (const MlpModules& expert : modules.mlps) {
    const bool gated = !expert.gate.empty() || !expert.gate_up.empty();
    if (gated || spec.activation == kernels::Activation::kRelu) {
      groups.push_back({{}, expert.gate_up.empty() ? expert.up : expert.gate_up, {}, {expert.down}, {}});
    } else if (!expert.scaled_activation.empty()) {
      groups.push_back({{}, {}, expert.scaled_activation, {expert.down}, {}});
    }
  }
  return groups;
}

}  // namespace nibble
