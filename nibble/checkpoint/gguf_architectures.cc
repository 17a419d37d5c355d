#include "nibble/checkpoint/gguf_architectures.h"

#include <array>
#include <string>
#include <vector>

#include "nibble/checkpoint/gguf_config.h"
#include "nibble/checkpoint/gguf_keys.h"

namespace nibble {
namespace {

constexpr GgufTensorName kLayerNames[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj", GgufHeads::kQuery},
    {"attn_k", "self_attn.k_proj", GgufHeads::kKey},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};

// Norms before and behind both branches.
constexpr GgufTensorName kGemma2Names[] = {
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};

constexpr GgufTensorName kPhi3Names[] = {
    {"attn_qkv", "self_attn.qkv_proj"},
    {"ffn_up", "mlp.gate_up_proj"},
};

Status configure_llama(const GgufKeys& keys, GgufConfig& result) {
  const auto& tensors = keys.header.tensors;
  result.config["attention_bias"] = tensors.contains("blk.0.attn_q.bias");
  result.config["mlp_bias"] = tensors.contains("blk.0.ffn_gate.bias");
  return {};
}

// Files do not say what queries are divided by the root of. It is head_dim but in the largest model of a
// generation, which is known by its number of layers.
void add_query_scalar(size_t layers_of_27b, GgufConfig& result) {
  const size_t width = result.config["hidden_size"].get<size_t>() / result.num_attention_heads;
  result.config["query_pre_attn_scalar"] =
      result.num_hidden_layers == layers_of_27b ? width : result.head_dim;
}

// Every layer sees `window` tokens but each `period`-th, which sees all.
Status add_sliding_layers(const GgufKeys& keys, size_t window, size_t default_period, GgufConfig& result) {
  NIBBLE_TRY(const size_t period, keys.size("attention.sliding_window_pattern", default_period));
  const size_t num_layers = result.num_hidden_layers;
  if (num_layers > keys.header.tensors.size()) {
    return fail(ErrorCode::kDataLoss, "{} layers, but the file has {} tensors", num_layers,
                keys.header.tensors.size())
        .at(keys.full("block_count"));
  }
  Json layer_types = Json::array();
  for (size_t layer = 1; layer <= num_layers; ++layer) {
    const bool slides = window > 0 && layer % period != 0;
    layer_types.push_back(slides ? "sliding_attention" : "full_attention");
  }
  result.config["sliding_window"] = window > 0 ? Json(window) : Json();
  result.config["layer_types"] = std::move(layer_types);
  return {};
}

// What is left out has the value that llama.cpp, and the published models, have.
Status configure_gemma2(const GgufKeys& keys, GgufConfig& result) {
  add_query_scalar(/*layers_of_27b=*/46, result);
  NIBBLE_TRY(result.config["attn_logit_softcapping"], keys.positive("attn_logit_softcapping", 50.0));
  NIBBLE_TRY(result.config["final_logit_softcapping"], keys.positive("final_logit_softcapping", 30.0));
  NIBBLE_TRY(const size_t window, keys.size("attention.sliding_window", 4096));
  return add_sliding_layers(keys, window, /*default_period=*/2, result);
}

Status configure_gemma3(const GgufKeys& keys, GgufConfig& result) {
  add_query_scalar(/*layers_of_27b=*/62, result);
  if (keys.has("final_logit_softcapping")) {
    NIBBLE_TRY(result.config["final_logit_softcapping"], keys.positive("final_logit_softcapping"));
  }
  NIBBLE_TRY(result.config["rope_local_base_freq"], keys.positive("rope.freq_base_swa", 10000.0));
  // Without a window, or with one of 0, every layer sees all.
  NIBBLE_TRY(const auto window, keys.optional_size("attention.sliding_window"));
  return add_sliding_layers(keys, window.value_or(0), /*default_period=*/6, result);
}

// A window of 0 is that of the models that have none.
Status configure_phi3(const GgufKeys& keys, GgufConfig& result) {
  NIBBLE_TRY(const auto window, keys.optional_size("attention.sliding_window"));
  result.config["sliding_window"] = window.value_or(0) > 0 ? Json(*window) : Json();
  return {};
}

constexpr GgufArchitecture gemma(std::string_view name, std::string_view model_type,
                                 std::string_view class_name) {
  return {.name = name,
          .model_type = model_type,
          .class_name = class_name,
          .activation_key = "hidden_activation",
          .activation = "gelu_pytorch_tanh",
          .end_of_turn = "<end_of_turn>",
          .norms_have_one_more = true,
          .byte_token_is_tab = true};
}

// From the second generation on.
constexpr GgufArchitecture sliding_gemma(std::string_view name, std::string_view model_type,
                                         std::string_view class_name,
                                         decltype(GgufArchitecture::configure) configure) {
  GgufArchitecture row = gemma(name, model_type, class_name);
  row.own_names = kGemma2Names;
  row.has_sliding_window = true;
  row.configure = configure;
  return row;
}

constexpr GgufArchitecture kArchitectures[] = {
    {.name = "llama",
     .model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .has_permuted_heads = true,
     .configure = configure_llama},
    {.name = "qwen2", .model_type = "qwen2", .class_name = "Qwen2ForCausalLM"},
    {.name = "qwen3", .model_type = "qwen3", .class_name = "Qwen3ForCausalLM"},
    gemma("gemma", "gemma", "GemmaForCausalLM"),
    sliding_gemma("gemma2", "gemma2", "Gemma2ForCausalLM", configure_gemma2),
    sliding_gemma("gemma3", "gemma3_text", "Gemma3ForCausalLM", configure_gemma3),
    {.name = "phi3",
     .model_type = "phi3",
     .class_name = "Phi3ForCausalLM",
     .own_names = kPhi3Names,
     .end_of_turn = "<|end|>",
     .rotates_partly = true,
     .has_sliding_window = true,
     .tokens_strip_white_space = true,
     .configure = configure_phi3},
};

const GgufTensorName* find_name(std::span<const GgufTensorName> rows, std::string_view name) {
  for (const GgufTensorName& row : rows) {
    if (row.gguf == name) return &row;
  }
  return nullptr;
}

}  // namespace

Expected<const GgufArchitecture*> find_gguf_architecture(std::string_view name) {
  std::vector<std::string_view> known;
  for (const GgufArchitecture& architecture : kArchitectures) {
    if (architecture.name == name) return &architecture;
    known.push_back(architecture.name);
  }
  return fail(ErrorCode::kUnsupported, "GGUF files of architecture \"{}\"", name)
      .with_fix(fmt::format("These can be imported: {}. For others, use the model's safetensors files.",
                            fmt::join(known, ", ")));
}

const GgufTensorName* find_layer_tensor(const GgufArchitecture& architecture, std::string_view name) {
  const GgufTensorName* const own = find_name(architecture.own_names, name);
  return own != nullptr ? own : find_name(kLayerNames, name);
}

}  // namespace nibble
