#include "nibble/models/scale_groups.h"

#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "nibble/models/model_source.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

ModelSource open_architecture(const std::string& name) {
  const auto folder = test::data_folder() / "architectures" / name;
  auto source = ModelSource::open(find_model(folder.string()).value());
  EXPECT_TRUE(source.has_value()) << name << ": " << (source ? "" : to_string(source.error()));
  return *std::move(source);
}

std::vector<ScaleGroup> groups_of(const ModelSource& source, size_t layer) {
  return scale_groups(source.spec, block_modules(source.spec, layer, source.prefix_missing), source.slots);
}

// "input_layernorm -> self_attn.q_proj self_attn.k_proj", names inside the block; compensated ones in
// brackets.
std::vector<std::string> described(const ModelSource& source, size_t layer) {
  const std::string prefix = block_modules(source.spec, layer, source.prefix_missing).prefix;
  const auto inside = [&](const std::string& name) {
    EXPECT_TRUE(name.starts_with(prefix)) << name;
    return name.substr(std::min(prefix.size(), name.size()));
  };
  std::vector<std::string> lines;
  for (const ScaleGroup& group : groups_of(source, layer)) {
    EXPECT_EQ(
        (group.norm.empty() ? 0 : 1) + (group.producer.empty() ? 0 : 1) + (group.activation.empty() ? 0 : 1),
        1);
    std::string line = inside(group.norm + group.producer + group.activation) + " ->";
    for (const std::string& name : group.layers) line += " " + inside(name);
    for (const std::string& name : group.compensated) line += " [" + inside(name) + "]";
    lines.push_back(line);
  }
  return lines;
}

using Lines = std::vector<std::string>;

const std::string kQkv = "input_layernorm -> self_attn.q_proj self_attn.k_proj self_attn.v_proj";
const std::string kGateUp = "post_attention_layernorm -> mlp.gate_proj mlp.up_proj";
const std::string kDown = "mlp.up_proj -> mlp.down_proj";
const Lines kLlama = {kQkv, kGateUp, kDown};  // grouped-query attention: v has fewer rows than o inputs
const Lines kGemma2 = {kQkv, "pre_feedforward_layernorm -> mlp.gate_proj mlp.up_proj", kDown};
const Lines kPhi3 = {"input_layernorm -> self_attn.qkv_proj", "post_attention_layernorm -> mlp.gate_up_proj",
                     "mlp.gate_up_proj -> mlp.down_proj"};

const std::string kFalconMlp = "post_attention_layernorm -> mlp.dense_h_to_4h";
const std::string kFalconDown = "mlp.act -> mlp.dense_4h_to_h";

Lines with_mlp(Lines attention, const Lines& mlp) {
  attention.insert(attention.end(), mlp.begin(), mlp.end());
  return attention;
}

// Of mixtures whose experts are Llama's MLPs; without a shared one `shared` is empty.
Lines experts_with_shared(size_t count, const std::string& shared, const std::string& shared_gate) {
  std::vector<std::string> names;
  for (size_t e = 0; e < count; ++e) names.push_back("mlp.experts." + std::to_string(e));
  if (!shared.empty()) names.push_back("mlp." + shared);
  Lines lines = {"post_attention_layernorm ->"};
  for (const std::string& name : names) {
    lines[0] += " " + name + ".gate_proj " + name + ".up_proj";
    lines.push_back(name + ".up_proj -> " + name + ".down_proj");
  }
  lines[0] += " [mlp.gate]" + shared_gate;
  return lines;
}

TEST(ScaleGroups, OfEveryArchitecture) {
  const std::string experts = "block_sparse_moe.experts.";
  Lines mixtral = {kQkv, "post_attention_layernorm ->"};
  for (const char* const e : {"0", "1", "2", "3"}) {
    mixtral[1] += " " + experts + e + ".w1 " + experts + e + ".w3";
    mixtral.push_back(experts + e + ".w3 -> " + experts + e + ".w2");
  }
  mixtral[1] += " [block_sparse_moe.gate]";
  const Lines deepseek_attention = {"input_layernorm -> self_attn.q_proj self_attn.kv_a_proj_with_mqa",
                                    "self_attn.kv_a_layernorm -> self_attn.kv_b_proj"};
  const Lines deepseek_low_rank = {"input_layernorm -> self_attn.q_a_proj self_attn.kv_a_proj_with_mqa",
                                   "self_attn.q_a_layernorm -> self_attn.q_b_proj",
                                   "self_attn.kv_a_layernorm -> self_attn.kv_b_proj"};
  const std::map<std::string, Lines> expected = {
      {"deepseek_v2", with_mlp(deepseek_attention, experts_with_shared(4, "shared_experts", ""))},
      {"deepseek_v2_groups", with_mlp(deepseek_low_rank, experts_with_shared(6, "shared_experts", ""))},
      {"deepseek_v3", with_mlp(deepseek_low_rank, experts_with_shared(8, "shared_experts", ""))},
      {"deepseek_v3_halves", with_mlp(deepseek_attention, experts_with_shared(6, "shared_experts", ""))},
      {"qwen2_moe", with_mlp({kQkv}, experts_with_shared(4, "shared_expert", " [mlp.shared_expert_gate]"))},
      {"qwen3_moe", with_mlp({kQkv}, experts_with_shared(4, "", ""))},
      {"gemma", kLlama},
      {"gemma2", kGemma2},
      {"gemma3_text", kGemma2},
      {"llama_bias", kLlama},
      {"llama_rope_dynamic", kLlama},
      {"llama_rope_linear", kLlama},
      {"llama_rope_llama3", kLlama},
      {"llama_rope_yarn", kLlama},
      {"mistral_sliding", kLlama},
      {"mixtral", mixtral},
      // Its attention clamps v.
      {"mpt", {"norm_1 -> attn.Wqkv", "norm_2 -> ffn.up_proj", "ffn.act -> ffn.down_proj"}},
      {"opt",
       {"self_attn_layer_norm -> self_attn.q_proj self_attn.k_proj self_attn.v_proj",
        "self_attn.v_proj -> self_attn.out_proj", "final_layer_norm -> fc1", "fc1 -> fc2"}},
      {"phi", {kQkv + " mlp.fc1", "self_attn.v_proj -> self_attn.dense"}},
      {"phi3_longrope_long", kPhi3},
      {"phi3_longrope_short", kPhi3},
      {"qwen2", kLlama},
      {"qwen2_sliding", kLlama},
      {"qwen3", kLlama},
      {"bloom",
       {"input_layernorm -> self_attention.query_key_value", kFalconMlp,
        "mlp.gelu_impl -> mlp.dense_4h_to_h"}},
      {"cohere", {kQkv + " mlp.gate_proj mlp.up_proj", kDown}},
      {"cohere2", {kQkv + " mlp.gate_proj mlp.up_proj", kDown}},
      {"falcon_7b", {"input_layernorm -> self_attention.query_key_value mlp.dense_h_to_4h", kFalconDown}},
      {"falcon_new",
       {"ln_attn -> self_attention.query_key_value", "ln_mlp -> mlp.dense_h_to_4h", kFalconDown}},
      {"falcon_rw_alibi", {"input_layernorm -> self_attention.query_key_value", kFalconMlp, kFalconDown}},
      {"falcon_rw_alibi_long",
       {"input_layernorm -> self_attention.query_key_value", kFalconMlp, kFalconDown}},
      {"glm4", {kQkv, "post_attention_layernorm -> mlp.gate_up_proj", "mlp.gate_up_proj -> mlp.down_proj"}},
      {"gpt2", {"ln_1 -> attn.c_attn", "attn.c_attn -> attn.c_proj", "ln_2 -> mlp.c_fc"}},
      {"gpt_bigcode", {"ln_1 -> attn.c_attn", "ln_2 -> mlp.c_fc", "mlp.act -> mlp.c_proj"}},
      {"gpt_neox", {"input_layernorm -> attention.query_key_value", kFalconMlp, kFalconDown}},
      {"gpt_neox_sequential", {"input_layernorm -> attention.query_key_value", kFalconMlp, kFalconDown}},
      {"gptj",
       {"ln_1 -> attn.q_proj attn.k_proj attn.v_proj mlp.fc_in", "attn.v_proj -> attn.out_proj",
        "mlp.act -> mlp.fc_out"}},
      {"granite", kLlama},
      {"nemotron", {kQkv, "post_attention_layernorm -> mlp.up_proj"}},
      {"olmo", {kDown}},
      {"olmo2", {kDown}},
      {"smollm3", kLlama},
      {"stablelm", kLlama},
      {"stablelm_qk_layernorm", {kQkv + " mlp.gate_proj mlp.up_proj", kDown}},
      {"starcoder2", {kQkv, "post_attention_layernorm -> mlp.c_fc", "mlp.act -> mlp.c_proj"}},
  };
  const std::map<std::string, Lines> expected_of_dense = {
      {"qwen3_moe", kLlama},
      {"deepseek_v2", with_mlp(deepseek_attention, {kGateUp, kDown})},
      {"deepseek_v2_groups", with_mlp(deepseek_low_rank, {kGateUp, kDown})},
      {"deepseek_v3", with_mlp(deepseek_low_rank, {kGateUp, kDown})},
      {"deepseek_v3_halves", with_mlp(deepseek_attention, {kGateUp, kDown})},
  };
  for (const std::string& name : test::architecture_names()) {
    ASSERT_TRUE(expected.contains(name)) << name << ": say here what its groups are";
    const ModelSource source = open_architecture(name);
    for (size_t layer = 0; layer < source.config.num_hidden_layers; ++layer) {
      const bool dense = expected_of_dense.contains(name) && !source.spec.is_sparse(layer);
      EXPECT_EQ(described(source, layer), (dense ? expected_of_dense : expected).at(name))
          << name << ", layer " << layer;
    }
  }
}

TEST(ScaleGroups, SizesFit) {
  for (const std::string& name : test::architecture_names()) {
    const ModelSource source = open_architecture(name);
    for (const ScaleGroup& group : groups_of(source, 0)) {
      const size_t channels = source.slot(group.layers.front()).shape[1];
      for (const std::string& layer : group.layers) EXPECT_EQ(source.slot(layer).shape[1], channels) << layer;
      for (const std::string& other : group.compensated) {
        EXPECT_EQ(source.slot(other).shape[1], channels) << other;
      }
      if (!group.activation.empty()) {
        EXPECT_EQ(source.slot(group.layers.front()).input_scales, group.activation + ".scales");
      } else if (group.norm.empty()) {
        EXPECT_GE(source.slot(group.producer).shape[0], channels) << group.producer;
      } else {
        EXPECT_EQ(source.slot(group.norm).shape[0], channels) << group.norm;
      }
    }
  }
}

TEST(ScaleGroups, ValuesReachTheOutputWhereEveryHeadHasItsOwn) {
  ModelSource source = open_architecture("llama_rope_linear");
  source.config.num_key_value_heads = source.config.num_attention_heads;
  source.slots = module_slots(source.spec, source.config, false);
  EXPECT_EQ(described(source, 0), (Lines{kQkv, "self_attn.v_proj -> self_attn.o_proj", kGateUp, kDown}));
  // Heads wider than hidden_size / heads: no square weights, AutoAWQ leaves them alone.
  source.config.head_dim *= 2;
  source.slots = module_slots(source.spec, source.config, false);
  EXPECT_EQ(described(source, 0), kLlama);

  ModelSource fused = open_architecture("phi3_longrope_long");
  fused.config.num_key_value_heads = fused.config.num_attention_heads;
  fused.slots = module_slots(fused.spec, fused.config, false);
  Lines with_values = kPhi3;
  with_values.insert(with_values.begin() + 1, "self_attn.qkv_proj -> self_attn.o_proj");
  EXPECT_EQ(described(fused, 0), with_values);

  ModelSource mpt = open_architecture("mpt");
  mpt.spec.clip_qkv = 0.f;
  EXPECT_EQ(described(mpt, 0), (Lines{"norm_1 -> attn.Wqkv", "attn.Wqkv -> attn.out_proj",
                                      "norm_2 -> ffn.up_proj", "ffn.act -> ffn.down_proj"}));
}

TEST(ScaleGroups, NormsBehindTheAdditionTakeNoScales) {
  ModelSource opt = open_architecture("opt");
  opt.spec.norm_before_branch = false;
  EXPECT_EQ(described(opt, 1), (Lines{"self_attn.v_proj -> self_attn.out_proj", "fc1 -> fc2"}));
  opt.spec.activation = kernels::Activation::kGelu;
  EXPECT_EQ(described(opt, 1), (Lines{"self_attn.v_proj -> self_attn.out_proj"}));
}

TEST(ScaleGroups, NamesFollowAFileWithoutPrefix) {
  const ModelSource source = open_architecture("gemma");
  const auto groups = scale_groups(source.spec, block_modules(source.spec, 1, true),
                                   module_slots(source.spec, source.config, true));
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[0].norm, "layers.1.input_layernorm");
  EXPECT_EQ(groups[2].producer, "layers.1.mlp.up_proj");
}

}  // namespace
}  // namespace nibble
