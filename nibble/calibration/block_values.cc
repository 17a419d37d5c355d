#include "nibble/calibration/block_values.h"

#include <algorithm>

namespace nibble {
namespace {

// The MLP reads what attention reads, through the same norm.
bool shares_input(const WalkState& state, const BlockValues& block) {
  return state.source.spec.names.parallel && block.parts.mlp_in_norm == nullptr;
}

Status replace_norm(const WalkState& state, const BlockReplacement& replacement, const std::string& module,
                    Norm* norm) {
  if (norm == nullptr) return {};
  NIBBLE_TRY(const auto* const weight, find_replaced(&replacement, module + ".weight", norm->weight.size()));
  if (weight != nullptr) {
    norm->weight = *weight;
    if (state.source.spec.names.norm_adds_one) {
      for (float& w : norm->weight) w += 1.f;
    }
  }
  NIBBLE_TRY(const auto* const bias, find_replaced(&replacement, module + ".bias", norm->size()));
  if (bias != nullptr) norm->bias = *bias;
  return {};
}

struct NamedNorm {
  std::string module;
  Norm* norm;
};

std::vector<NamedNorm> norms_of(const WalkState& state, const std::string& prefix,
                                const DecoderBlock& parts) {
  const BlockNames& names = state.source.spec.names.block;
  const auto named = [&](std::string_view name, const std::unique_ptr<Norm>& norm) {
    return NamedNorm{prefix + std::string(name), norm.get()};
  };
  return {named(names.attention_in_norm, parts.attention_in_norm),
          named(names.attention_out_norm, parts.attention_out_norm),
          named(names.mlp_in_norm, parts.mlp_in_norm),
          named(names.mlp_out_norm, parts.mlp_out_norm),
          named(names.q_norm, parts.q_norm),
          named(names.k_norm, parts.k_norm),
          named(names.q_a_norm, parts.q_a_norm),
          named(names.kv_a_norm, parts.kv_a_norm)};
}

// All tensors that are replaced belong to the block.
Status check_names(const BlockValues& block, const std::vector<NamedNorm>& norms,
                   const std::vector<std::string>& scales, const BlockReplacement& replacement) {
  std::vector<std::string> modules;
  for (const InputPoint& input : block.inputs) {
    modules.insert(modules.end(), input.modules.begin(), input.modules.end());
  }
  for (const NamedNorm& norm : norms) {
    if (norm.norm != nullptr) modules.push_back(norm.module);
  }
  for (const auto& [tensor, values] : replacement.tensors) {
    if (std::find(scales.begin(), scales.end(), tensor) != scales.end()) continue;
    const std::string module = tensor.substr(0, tensor.rfind('.'));
    const bool known = std::find(modules.begin(), modules.end(), module) != modules.end();
    if (known && (tensor == module + ".weight" || tensor == module + ".bias")) continue;
    return fail(ErrorCode::kInvalidArgument, "the block has no such tensor").at(tensor);
  }
  return {};
}

void list_inputs(const WalkState& state, BlockValues& block) {
  const auto add = [&](const LinearStack& stack) {
    if (!stack.modules.empty()) block.inputs.push_back({stack.modules, stack.in});
  };
  add(block.attention_in);
  if (shares_input(state, block)) {
    const std::vector<std::string>& also = block.mlps.front().in.modules;
    block.inputs.back().modules.insert(block.inputs.back().modules.end(), also.begin(), also.end());
  }
  add(block.q_b);
  add(block.kv_b);
  add(block.attention_out);
  add(block.router);
  for (const BlockValues::Mlp& mlp : block.mlps) {
    if (!shares_input(state, block)) add(mlp.in);
    add(mlp.out);
  }
}

// One forward pass of one group.
struct Pass {
  WalkState& state;
  const BlockValues& block;
  const TokenGroup& group;
  linalg::Arithmetic arithmetic;
  const SeeInput& see;

  // Where an MLP reads what attention reads, its linears are not the first of any input: nothing is seen
  // twice.
  void saw(const LinearStack& reader, MatrixView<const float> x) const {
    if (!see || reader.modules.empty()) return;
    for (size_t i = 0; i < block.inputs.size(); ++i) {
      if (block.inputs[i].modules.front() == reader.modules.front()) return see(i, x);
    }
  }
};

void see_latents(const Pass& pass, MatrixView<const float> x) {
  const Arena::Scope scope(pass.state.arena);
  const BlockValues& block = pass.block;
  const Latents latents =
      latents_of(pass.state, block.parts, block.attention_in.all(false), x, pass.arithmetic);
  pass.saw(block.q_b, latents.q);
  pass.saw(block.kv_b, latents.kv);
}

void attention(const Pass& pass, MatrixView<const float> x, MatrixView<float> y) {
  const Arena::Scope scope(pass.state.arena);
  const BlockValues& block = pass.block;
  const LinearStack& last = block.attention_out;
  const MatrixView<float> inner = pass.state.arena.take_matrix(x.rows(), last.in);
  pass.saw(block.attention_in, x);
  if (pass.see && !block.kv_b.modules.empty()) see_latents(pass, x);
  const AttentionLinears linears = {block.attention_in.all(false), block.q_b.all(false),
                                    block.kv_b.all(false)};
  attention_values(pass.state, block.parts, linears, pass.group, x, inner, pass.arithmetic);
  pass.saw(last, inner);
  apply(last.all(false), inner, y, pass.arithmetic, pass.state.pool);
}

void mlp(const Pass& pass, const BlockValues::Mlp& weights, MatrixView<const float> x, MatrixView<float> y) {
  const Arena::Scope scope(pass.state.arena);
  pass.saw(weights.in, x);
  const MatrixView<float> inner = pass.state.arena.take_matrix(x.rows(), weights.out.in);
  mlp_values(pass.state, weights.in.all(false), x, inner, pass.arithmetic);
  if (!weights.activation_scales.empty()) {
    divide_columns(weights.activation_scales, inner, pass.state.context);
  }
  pass.saw(weights.out, inner);
  apply(weights.out.all(false), inner, y, pass.arithmetic, pass.state.pool);
}

void experts(const Pass& pass, MatrixView<const float> x, MatrixView<float> y) {
  WalkState& state = pass.state;
  const Arena::Scope scope(state.arena);
  const MatrixView<float> scores = state.arena.take_matrix(x.rows(), pass.block.mlps.size());
  const LinearStack& router = pass.block.router;
  pass.saw(router, x);
  apply(router.all(false), x, scores.cols(0, router.out), linalg::Arithmetic::kF32, state.pool);
  route_tokens(state.source.spec, pass.block.parts.router_correction, scores, state.context);
  for (size_t r = 0; r < y.rows(); ++r) std::fill_n(y.row(r), y.cols(), 0.f);
  for (size_t e = 0; e < pass.block.mlps.size(); ++e) {
    const Arena::Scope expert_scope(state.arena);
    std::vector<size_t> rows;
    for (size_t r = 0; r < x.rows(); ++r) {
      if (scores.row(r)[e] > 0.f) rows.push_back(r);
    }
    if (rows.empty()) continue;
    const MatrixView<float> in = state.arena.take_matrix(rows.size(), x.cols());
    const MatrixView<float> out = state.arena.take_matrix(rows.size(), y.cols());
    for (size_t i = 0; i < rows.size(); ++i) std::copy_n(x.row(rows[i]), x.cols(), in.row(i));
    mlp(pass, pass.block.mlps[e], in, out);
    for (size_t i = 0; i < rows.size(); ++i) {
      const float weight = scores.row(rows[i])[e];
      for (size_t c = 0; c < y.cols(); ++c) y.row(rows[i])[c] += weight * out.row(i)[c];
    }
  }
}

void feed_forward(const Pass& pass, MatrixView<const float> x, MatrixView<float> y) {
  if (!pass.block.router.modules.empty()) {
    experts(pass, x, y);
  } else {
    mlp(pass, pass.block.mlps.front(), x, y);
  }
}

}  // namespace

Expected<BlockValues> load_block(const WalkState& state, size_t layer, const BlockReplacement* replacement) {
  const ModelSource& source = state.source;
  const BlockModules names = block_modules(source.spec, layer, source.prefix_missing);
  BlockValues block;
  WeightLoader loader = make_loader(state);
  NIBBLE_RETURN_IF_ERROR(load_block_norms(source.spec, source.config, layer, names, loader, block.parts));
  const auto load = [&](const std::vector<std::string>& modules) {
    return load_stack(source, modules, replacement);
  };
  NIBBLE_TRY(block.attention_in, load({names.qkv, names.q, names.k, names.v, names.q_a, names.kv_a}));
  NIBBLE_TRY(block.q_b, load({names.q_b}));
  NIBBLE_TRY(block.kv_b, load({names.kv_b}));
  NIBBLE_TRY(block.attention_out, load({names.o}));
  NIBBLE_TRY(block.router, load({names.router, names.shared_gate}));
  std::vector<std::string> scales;
  for (const MlpModules& modules : names.mlps) {
    BlockValues::Mlp& mlp = block.mlps.emplace_back();
    NIBBLE_TRY(mlp.in, load({modules.gate_up, modules.gate, modules.up}));
    NIBBLE_TRY(mlp.out, load({modules.down}));
    if (modules.scaled_activation.empty()) continue;
    scales.push_back(modules.scaled_activation + ".scales");
    NIBBLE_TRY(const auto* const replaced, find_replaced(replacement, scales.back(), mlp.out.in));
    if (replaced != nullptr) mlp.activation_scales = *replaced;
  }
  list_inputs(state, block);
  if (replacement == nullptr) return block;
  const std::vector<NamedNorm> norms = norms_of(state, names.prefix, block.parts);
  NIBBLE_RETURN_IF_ERROR(check_names(block, norms, scales, *replacement));
  for (const NamedNorm& norm : norms) {
    NIBBLE_RETURN_IF_ERROR(replace_norm(state, *replacement, norm.module, norm.norm));
  }
  return block;
}

void forward_block(WalkState& state, const BlockValues& block, const TokenGroup& group,
                   MatrixView<float> hidden, linalg::Arithmetic arithmetic, const SeeInput& see) {
  const Arena::Scope scope(state.arena);
  const Pass pass = {state, block, group, arithmetic, see};
  const DecoderBlock& parts = block.parts;
  const MatrixView<float> x = state.arena.take_matrix(hidden.rows(), hidden.cols());
  const MatrixView<float> y = state.arena.take_matrix(hidden.rows(), hidden.cols());
  branch_input(state, parts.attention_in_norm.get(), hidden, x);
  attention(pass, x, y);
  if (state.source.spec.names.parallel) {
    const MatrixView<float> second = state.arena.take_matrix(hidden.rows(), hidden.cols());
    if (parts.mlp_in_norm != nullptr) branch_input(state, parts.mlp_in_norm.get(), hidden, x);
    feed_forward(pass, x, second);
    const float scale = state.source.spec.residual_scale;
    add_rows(y, scale, hidden, state.context);
    add_rows(second, scale, hidden, state.context);
    return;
  }
  finish_branch(state, parts.attention_in_norm.get(), parts.attention_out_norm.get(), y, hidden);
  branch_input(state, parts.mlp_in_norm.get(), hidden, x);
  feed_forward(pass, x, y);
  finish_branch(state, parts.mlp_in_norm.get(), parts.mlp_out_norm.get(), y, hidden);
}

}  // namespace nibble
