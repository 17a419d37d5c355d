#include "nibble/models/module_slots.h"

#include <algorithm>
#include <iterator>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/json.h"
#include "nibble/base/log.h"

namespace nibble {
namespace {

// A checkpoint of headers only.
class HeaderCheckpoint final : public Checkpoint {
 public:
  void set(const std::string& name, const Shape& shape) { tensors_[name] = {DType::kF16, shape}; }
  void erase(const std::string& name) { tensors_.erase(name); }

  Expected<Tensor> tensor(std::string_view name) const override {
    return fail(ErrorCode::kNotFound, "{}", name);
  }
  std::string file_of(std::string_view) const override { return "model.safetensors"; }
  size_t file_bytes() const override { return 0; }
};

struct Problem {
  explicit Problem(const std::string& model_type, bool tied = true, const Json& more = Json::object()) {
    Json json = {{"model_type", model_type},   {"hidden_size", 32},
                 {"intermediate_size", 64},    {"num_hidden_layers", 2},
                 {"num_attention_heads", 4},   {"num_key_value_heads", 2},
                 {"vocab_size", 128},          {"max_position_embeddings", 64},
                 {"rms_norm_eps", 1e-6},       {"hidden_act", "silu"},
                 {"tie_word_embeddings", tied}};
    json.update(more);
    auto parsed = PretrainedConfig::from_json(json);
    EXPECT_TRUE(parsed.has_value()) << (parsed ? "" : to_string(parsed.error()));
    config = *std::move(parsed);
    spec = make_decoder_spec(config).value();
    slots = module_slots(spec, config, /*prefix_missing=*/false);
    for (const ModuleSlot& slot : slots) {
      checkpoint.set(slot.name + ".weight", slot.shape);
      if (slot.bias_required) checkpoint.set(slot.name + ".bias", {slot.shape[0]});
    }
  }

  Status check() const {
    return check_slots(checkpoint, slots, spec, {.tied_head = config.tie_word_embeddings});
  }

  PretrainedConfig config;
  DecoderSpec spec;
  std::vector<ModuleSlot> slots;
  HeaderCheckpoint checkpoint;
};

TEST(ModuleSlots, EveryRowOfTheTableAcceptsItsOwnTensors) {
  for (const Architecture& row : architectures()) {
    // Other keys in config.json; their golden tests cover them.
    constexpr std::string_view kOtherKeys[] = {"opt",         "mpt",         "gpt2",      "gpt_bigcode",
                                               "gptj",        "bloom",       "qwen2_moe", "qwen3_moe",
                                               "deepseek_v2", "deepseek_v3", "mixtral"};
    if (std::find(std::begin(kOtherKeys), std::end(kOtherKeys), row.model_type) != std::end(kOtherKeys)) {
      continue;
    }
    const Problem p{std::string(row.model_type)};
    const Status status = p.check();
    EXPECT_TRUE(status.has_value()) << row.model_type << ": " << (status ? "" : to_string(status.error()));
  }
}

TEST(ModuleSlots, ALlamaBlockHasNineModules) {
  const Problem p("llama", /*tied=*/false);
  EXPECT_EQ(p.slots.size(), 1u + 2 * 9 + 1 + 1);  // embedding, blocks, final norm, head
  EXPECT_EQ(linear_modules(p.slots).size(), 2u * 7);
  EXPECT_EQ(p.slots.back().name, "lm_head");
  EXPECT_EQ(p.slots[2].name, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(p.slots[3].shape, (Shape{16, 32}));
}

TEST(ModuleSlots, MissingTensorsAreNamedTogether) {
  Problem p("llama");
  p.checkpoint.erase("model.layers.0.mlp.up_proj.weight");
  p.checkpoint.erase("model.norm.weight");
  const Status status = p.check();
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(status.error().what,
            "2 tensors are missing: model.layers.0.mlp.up_proj.weight, model.norm.weight");
}

TEST(ModuleSlots, ARequiredBiasIsATensorLikeAnyOther) {
  Problem p("qwen2");
  p.checkpoint.erase("model.layers.1.self_attn.q_proj.bias");
  const Status status = p.check();
  ASSERT_FALSE(status.has_value());
  EXPECT_NE(status.error().what.find("model.layers.1.self_attn.q_proj.bias"), std::string::npos);
}

TEST(ModuleSlots, ABiasThatNobodyAskedForIsUsed) {
  Problem p("llama");
  p.checkpoint.set("model.layers.0.mlp.down_proj.bias", {32});  // AutoGPTQ writes zeros for every layer
  EXPECT_TRUE(p.check().has_value());
}

TEST(ModuleSlots, UnusedTensorsAreAnError) {
  Problem p("llama");
  p.checkpoint.set("model.layers.2.mlp.down_proj.weight", {32, 64});
  const Status status = p.check();
  ASSERT_FALSE(status.has_value());
  EXPECT_NE(status.error().what.find("model.layers.2.mlp.down_proj.weight"), std::string::npos);
}

TEST(ModuleSlots, BuffersOfOldVersionsAreIgnored) {
  Problem p("llama");
  p.checkpoint.set("model.layers.0.self_attn.rotary_emb.inv_freq", {4});
  p.checkpoint.set("lm_head.weight", {128, 32});  // a copy of the tied embedding
  EXPECT_TRUE(p.check().has_value());
}

Problem deepseek_v3(const Json& more = Json::object()) {
  Json keys = {{"num_key_value_heads", 4},    {"q_lora_rank", nullptr},
               {"kv_lora_rank", 8},           {"qk_nope_head_dim", 8},
               {"qk_rope_head_dim", 4},       {"v_head_dim", 8},
               {"n_routed_experts", 4},       {"num_experts_per_tok", 2},
               {"moe_intermediate_size", 16}, {"n_group", 1},
               {"first_k_dense_replace", 1},  {"topk_group", 1}};
  keys.update(more);
  Problem p("deepseek_v3", /*tied=*/false, keys);
  for (const ModuleSlot& slot : p.slots) {
    if (!slot.correction.empty()) p.checkpoint.set(fmt::format("{}.{}", slot.name, slot.correction), {4});
  }
  return p;
}

TEST(ModuleSlots, LayersThatPredictMoreTokensAreLeftOutWithASentence) {
  for (const Json& more : {Json::object(), Json{{"num_nextn_predict_layers", 1}},
                           Json{{"num_nextn_predict_layers", 1'000'000'000}}}) {
    Problem p = deepseek_v3(more);
    p.checkpoint.set("model.layers.2.eh_proj.weight", {32, 64});
    p.checkpoint.set("model.layers.2.self_attn.o_proj.qweight", {4, 32});
    const Status status = p.check();
    EXPECT_TRUE(status.has_value()) << to_string(status.error());
  }
  EXPECT_THAT(warnings(), testing::Contains("2 tensors of layers behind the model's 2 are not used: they "
                                            "predict tokens further ahead"));
}

TEST(ModuleSlots, NoMoreSuchLayersThanTheConfigurationHas) {
  for (const auto& [name, layers] : {std::pair<const char*, int>{"model.layers.2.eh_proj.weight", 0},
                                     {"model.layers.3.eh_proj.weight", 1},
                                     {"model.layers.2x.eh_proj.weight", 1},
                                     {"model.layers.99999999999999999999.eh_proj.weight", 1},
                                     {"model.layers.2", 1}}) {
    Problem p = deepseek_v3({{"num_nextn_predict_layers", layers}});
    p.checkpoint.set(name, {32, 64});
    const Status status = p.check();
    ASSERT_FALSE(status.has_value()) << name;
    EXPECT_NE(status.error().what.find(name), std::string::npos) << to_string(status.error());
  }
}

TEST(ModuleSlots, WrongShapesShowBoth) {
  Problem p("llama");
  p.checkpoint.set("model.layers.0.self_attn.q_proj.weight", {32, 48});
  const Status status = p.check();
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().what,
            "model.layers.0.self_attn.q_proj.weight: shape [32, 48], but config.json asks for [32, 32]");
}

TEST(ModuleSlots, TheBareModelLacksThePrefix) {
  const Problem p("llama");
  HeaderCheckpoint bare;
  for (const ModuleSlot& slot : module_slots(p.spec, p.config, /*prefix_missing=*/true)) {
    EXPECT_FALSE(slot.name.starts_with("model."));
    bare.set(slot.name + ".weight", slot.shape);
  }
  EXPECT_TRUE(prefix_is_missing(bare, p.spec));
  EXPECT_FALSE(prefix_is_missing(p.checkpoint, p.spec));
}

TEST(Architectures, UnknownModelTypesAreAnsweredWithTheList) {
  PretrainedConfig config;
  config.model_type = "lllama";
  const auto spec = make_decoder_spec(config);
  ASSERT_FALSE(spec.has_value());
  EXPECT_EQ(spec.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(spec.error().fix.find("gemma3_text"), std::string::npos);
}

}  // namespace
}  // namespace nibble
