#ifndef NIBBLE_MODELS_ARCHITECTURE_H_
#define NIBBLE_MODELS_ARCHITECTURE_H_

// Architectures as data: what the tensors are called and what a block does with them. A Llama-like
// model is a row in the table of architecture_table.cc; decoder.cc runs every row.

#include <span>
#include <string_view>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/config/pretrained_config.h"
#include "nibble/kernels/elementwise.h"
#include "nibble/nn/norm.h"

namespace nibble {

// Module names inside a block. Empty: the architecture has no such module.
struct BlockNames {
  // A branch (attention or MLP) is: residual + out_norm(branch(in_norm(residual))).
  std::string_view attention_in_norm = "input_layernorm";
  std::string_view attention_out_norm = "";
  std::string_view mlp_in_norm = "post_attention_layernorm";
  std::string_view mlp_out_norm = "";

  std::string_view q = "self_attn.q_proj";
  std::string_view k = "self_attn.k_proj";
  std::string_view v = "self_attn.v_proj";
  std::string_view qkv = "";  // instead of the three: their rows one after the other
  std::string_view o = "self_attn.o_proj";
  std::string_view q_norm = "";  // before the rotation; QkNorm says over what
  std::string_view k_norm = "";

  // Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434), instead of k and v: kv_a makes a short
  // vector of a token, and of its norm kv_b makes all heads' keys and values. The last outputs of kv_a are
  // the rotated part of the keys, the same for all heads. With q_a queries take the same way.
  std::string_view q_a = "", q_a_norm = "", q_b = "";
  std::string_view kv_a = "", kv_a_norm = "", kv_b = "";

  std::string_view gate = "mlp.gate_proj";  // empty with gate_up empty: an MLP without gate
  std::string_view up = "mlp.up_proj";
  std::string_view gate_up = "";  // instead of both
  std::string_view down = "mlp.down_proj";
  // An activation function that AWQ may scale (AutoAWQ's ScaledActivation): a tensor NAME.scales,
  // [intermediate_size], divides what it gives.
  std::string_view scaled_activation = "";

  // A mixture of experts: the router, the list of experts, and the expert that every token goes to, whose
  // result shared_gate scales. Each expert holds expert_gate, expert_up and expert_down.
  std::string_view router = "";
  std::string_view experts = "";
  std::string_view shared_expert = "";
  std::string_view shared_gate = "";
  std::string_view expert_gate = "gate_proj";
  std::string_view expert_up = "up_proj";
  std::string_view expert_down = "down_proj";
  std::string_view router_correction = "";  // a tensor of the router, [experts]: RouterRule
};

// What q_norm and k_norm normalise together, and how many weights they have.
enum class QkNorm {
  kHead,      // each head, by one weight of [head_dim]
  kEachHead,  // each head, by its own row of a weight [heads, head_dim] (Cohere)
  kHeadList,  // the same as one module for each head, NAME.norms.0, .1, ... (StableLM)
  kAllHeads,  // the whole row, by a weight of [heads * head_dim] (OLMo 2)
};

struct DecoderSpec;

// How a router's outputs become the weights of the experts that a token goes to.
struct RouterRule {
  bool sigmoid = false;      // a score is the sigmoid of an output; otherwise the softmax over all experts
  bool normalized = true;    // the weights of the chosen experts are divided by their sum
  float scale = 1.f;         // of the weights
  size_t num_groups = 1;     // experts are chosen from groups of neighbours ...
  size_t groups_chosen = 1;  // ... of which these many are taken,
  size_t group_rank = 1;     // by the sum of their so many best scores
  // BlockNames::router_correction is added to the scores for the choice, not for the weights (DeepSeek-V3,
  // arXiv:2412.19437).
};

// One row of the table. The defaults are Llama's.
struct Architecture {
  std::string_view model_type;
  std::string_view prefix = "model.";  // some files leave it out
  std::string_view embed = "model.embed_tokens";
  std::string_view embed_norm = "";  // of the embedding, before the first block
  std::string_view positions = "";   // learned position embedding
  size_t position_offset = 0;        // of its first row
  std::string_view project_in = "";  // between embedding and blocks, where their widths differ
  std::string_view project_out = "";
  std::string_view layers = "model.layers";
  std::string_view final_norm = "model.norm";
  std::string_view head = "lm_head";
  BlockNames block = {};
  NormKind norm = NormKind::kRms;
  bool norm_bias = false;      // LayerNorm with bias
  bool norm_adds_one = false;  // the weight is stored as w - 1 (Gemma, Nemotron)
  bool norm_weight = true;     // false: nothing follows the normalisation, the file has no tensor (OLMo)
  QkNorm qk_norm = QkNorm::kHead;
  bool rotary = true;
  bool rotary_interleaved = false;  // rotates pairs (x[2i], x[2i + 1]), not (x[i], x[i + dims / 2])
  // Rows of a fused qkv: those of one key/value head together (its queries, its key, its value), not all
  // queries, all keys, all values.
  bool qkv_by_head = false;
  bool transposed_linears = false;  // the file has linears of a block as [in, out] (Conv1D of GPT-2)
  // Attention and MLP both read the block's input (through one norm, or one each), and both results
  // are added to it.
  bool parallel = false;
  bool qkv_bias = false;  // biases that must be there; others are used where the file has them
  bool head_bias = false;
  // What depends on values of config.json.
  Status (*configure)(const PretrainedConfig& config, DecoderSpec& spec) = nullptr;
};

// A row together with a configuration: everything decoder.cc needs to know.
struct DecoderSpec {
  Architecture names;
  kernels::Activation activation = kernels::Activation::kSilu;
  float attention_scale = 1.f;
  float attention_soft_cap = 0.f;  // 0: none
  float final_soft_cap = 0.f;
  float embedding_scale = 1.f;
  float residual_scale = 1.f;  // of what a branch adds to the stream
  float logit_scale = 1.f;
  size_t embedding_size = 0;       // width of the embedding; hidden_size unless project_in is there
  bool norm_before_branch = true;  // false: out = in_norm(residual + branch(residual)) (OPT 350M)
  bool final_norm = true;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;  // must be in the file
  std::vector<size_t> window;                               // per layer: tokens seen, 0 for all
  std::vector<bool> sliding_rope;                           // per layer: rotates by config.rope_sliding
  std::vector<bool> rotates;                                // per layer; false: no rotation there
  std::vector<float> alibi_slopes;                          // per head; empty: no ALiBi
  // Falcon: attention_scale * bfloat16(slope * position), slope and position in bfloat16, instead of the
  // exact slope * distance, which differs from 256 tokens on.
  bool alibi_in_bfloat16 = false;
  float clip_qkv = 0.f;      // > 0: queries, keys and values are clamped to +- this
  std::vector<bool> sparse;  // per layer: a mixture of experts; false: a plain MLP
  size_t num_experts = 0;    // those that the router chooses from; 0: no layer is sparse
  size_t experts_per_token = 0;
  size_t expert_size = 0;         // intermediate_size of an expert
  size_t shared_expert_size = 0;  // of the shared one; 0: there is none
  RouterRule router;
  size_t q_rank = 0, kv_rank = 0;  // width of the short vectors of latent attention; 0: there is none
  bool latent_bias = false;        // of q_a and kv_a; must be in the file
  size_t extra_layers = 0;         // behind the model's own in the file, which nothing here uses (MTP)

  bool is_sparse(size_t layer) const { return layer < sparse.size() && sparse[layer]; }
};

// The table.
std::span<const Architecture> architectures();

// kUnsupported for a model_type that is not in the table; the message names the nearest and lists what is.
Expected<DecoderSpec> make_decoder_spec(const PretrainedConfig& config);

// kernels::Activation for a hidden_act of config.json.
Expected<kernels::Activation> activation_from_name(std::string_view name);

}  // namespace nibble

#endif  // NIBBLE_MODELS_ARCHITECTURE_H_
