#include "nibble/checkpoint/gguf_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "nibble/checkpoint/gguf_quants.h"

namespace nibble {
namespace {

constexpr std::array kArchitectures = {
    GgufArchitecture{"llama", "llama", "LlamaForCausalLM", /*has_permuted_heads=*/true},
    GgufArchitecture{"qwen2", "qwen2", "Qwen2ForCausalLM", /*has_permuted_heads=*/false},
    GgufArchitecture{"qwen3", "qwen3", "Qwen3ForCausalLM", /*has_permuted_heads=*/false},
};

constexpr uint64_t kMaxSize = uint64_t{1} << 31;

Expected<const GgufArchitecture*> find_architecture(const GgufHeader& header) {
  NIBBLE_TRY(const auto name, gguf_string(header, "general.architecture"));
  if (!name) return fail(ErrorCode::kDataLoss, "general.architecture is missing");
  std::vector<std::string_view> known;
  for (const GgufArchitecture& architecture : kArchitectures) {
    if (architecture.name == *name) return &architecture;
    known.push_back(architecture.name);
  }
  return fail(ErrorCode::kUnsupported, "GGUF files of architecture \"{}\"", *name)
      .with_fix(fmt::format("These can be imported: {}. For others, use the model's safetensors files.",
                            fmt::join(known, ", ")));
}

// Reads the keys of one architecture: "llama.block_count".
struct Keys {
  const GgufHeader& header;
  std::string prefix;

  std::string full(std::string_view key) const { return prefix + std::string(key); }

  // A size that may be missing. Some files have a list with one value per layer; if all are equal,
  // it is that value.
  Expected<std::optional<size_t>> optional_size(std::string_view key) const {
    const auto found = header.metadata.find(full(key));
    if (found == header.metadata.end()) return std::optional<size_t>();
    const Json* value = &found->second;
    if (value->is_array() && !value->empty()) {
      for (const Json& element : *value) {
        if (element != value->front()) {
          return fail(ErrorCode::kUnsupported, "differs between the layers").at(full(key));
        }
      }
      value = &value->front();
    }
    if (!value->is_number_integer() || *value < 0 || *value > kMaxSize) {
      return fail(ErrorCode::kDataLoss, "{} is no size from 0 to {}",
                  value->is_number() ? value->dump() : std::string(json_type_name(*value)), kMaxSize)
          .at(full(key));
    }
    return std::optional<size_t>(value->get<size_t>());
  }

  Expected<size_t> size(std::string_view key, std::optional<size_t> fallback = {}) const {
    NIBBLE_TRY(const auto value, optional_size(key));
    const size_t size = value.value_or(fallback.value_or(0));
    if (size == 0)
      return fail(ErrorCode::kDataLoss, "{}", value ? "must not be 0" : "is missing").at(full(key));
    return size;
  }

  Expected<double> positive(std::string_view key, std::optional<double> fallback = {}) const {
    NIBBLE_TRY(const auto value, gguf_number(header, full(key)));
    if (!value && !fallback) return fail(ErrorCode::kDataLoss, "is missing").at(full(key));
    const double number = value ? *value : *fallback;
    if (std::isfinite(number) && number > 0) return number;
    return fail(ErrorCode::kDataLoss, "{} is not a positive number", number).at(full(key));
  }
};

bool is_matrix(const GgufTensor& tensor) { return tensor.shape.size() > 1; }

// One type for the whole model: the smallest that holds what the file has.
Expected<DType> choose_dtype(const GgufHeader& header) {
  bool any_half = false;
  bool any_bfloat = false;
  for (const auto& [name, tensor] : header.tensors) {
    if (find_dequantizer(tensor.type) == nullptr) {
      return fail(ErrorCode::kUnsupported, "tensors of type {}; {} can be read",
                  ggml_type_info(tensor.type).name, dequantizable_types())
          .at(name)
          .with_fix("Use a Q8_0 or F16 file of the model, or its safetensors files.");
    }
    if (!is_matrix(tensor)) continue;
    any_bfloat = any_bfloat || tensor.type == GgmlType::kBF16;
    any_half = any_half || (tensor.type != GgmlType::kBF16 && tensor.type != GgmlType::kF32);
  }
  return any_half ? DType::kF16 : any_bfloat ? DType::kBF16 : DType::kF32;
}

// The divisors of the rotary frequencies of Llama 3.1, which scale long wavelengths only.
std::vector<double> llama3_rope_factors(double rope_theta, double factor, size_t head_dim) {
  constexpr double kLowFreqFactor = 1.0;
  constexpr double kHighFreqFactor = 4.0;
  constexpr double kOriginalPositions = 8192.0;
  std::vector<double> factors;
  for (size_t i = 0; i < head_dim; i += 2) {
    const double exponent = static_cast<double>(i) / static_cast<double>(head_dim);
    const double wavelength = 2 * std::numbers::pi * std::pow(rope_theta, exponent);
    const double smooth =
        (kOriginalPositions / wavelength - kLowFreqFactor) / (kHighFreqFactor - kLowFreqFactor);
    const double clamped = std::clamp(smooth, 0.0, 1.0);
    factors.push_back(1.0 / ((1.0 - clamped) / factor + clamped));
  }
  return factors;
}

// rope_freqs.weight holds the divisors, not the parameters they were made from: those are guessed
// (all models of the kind have the same but for the factor) and the guess is checked.
Expected<Json> rope_scaling_from_factors(const GgufTensor& tensor, std::span<const std::byte> bytes,
                                         double rope_theta, size_t head_dim) {
  const Failure refusal = fail(ErrorCode::kUnsupported, "rotary factors that are not those of Llama 3.1")
                              .at("rope_freqs.weight")
                              .with_fix("Use the model's safetensors files.");
  if (tensor.type != GgmlType::kF32 || tensor.shape != Shape{head_dim / 2}) return refusal;
  std::vector<float> stored(head_dim / 2);
  std::memcpy(stored.data(), bytes.data(), bytes.size());
  const float factor = stored.empty() ? 1.0f : stored.back();
  if (!std::isfinite(factor) || factor < 1.0f) return refusal;
  const std::vector<double> expected = llama3_rope_factors(rope_theta, factor, head_dim);
  for (size_t i = 0; i < stored.size(); ++i) {
    // The file's were computed in float32: some ten roundings of 2^-24, made larger by the
    // differences in `smooth`.
    constexpr double kTolerance = 1e-4;
    if (!(std::abs(stored[i] - expected[i]) <= kTolerance * expected[i])) return refusal;
  }
  if (factor == 1.0f) return Json();
  return Json{{"rope_type", "llama3"},
              {"factor", std::round(factor * 1024) / 1024.0},
              {"low_freq_factor", 1.0},
              {"high_freq_factor", 4.0},
              {"original_max_position_embeddings", 8192}};
}

// null: no scaling.
Expected<Json> rope_scaling(const Keys& keys, const GgufFiles& files, double rope_theta, size_t head_dim) {
  for (const auto& entry : keys.header.metadata) {
    const std::string_view key = entry.first;
    const std::string prefix = keys.full("rope.scaling.");
    if (!key.starts_with(prefix)) continue;
    const std::string_view rest = key.substr(prefix.size());
    constexpr std::array<std::string_view, 4> kKnown = {"type", "factor", "original_context_length",
                                                        "finetuned"};
    if (std::find(kKnown.begin(), kKnown.end(), rest) == kKnown.end()) {
      return fail(ErrorCode::kUnsupported, "this kind of rotary scaling is not implemented").at(key);
    }
  }
  const auto factors = keys.header.tensors.find("rope_freqs.weight");
  if (factors != keys.header.tensors.end()) {
    return rope_scaling_from_factors(factors->second, files.bytes_of(factors->second), rope_theta, head_dim);
  }
  NIBBLE_TRY(const auto type, gguf_string(keys.header, keys.full("rope.scaling.type")));
  NIBBLE_TRY(const double old_factor, keys.positive("rope.scale_linear", 1.0));
  if (!type && old_factor != 1.0) return Json{{"rope_type", "linear"}, {"factor", old_factor}};
  if (!type || *type == "none") return Json();
  if (*type != "linear" && *type != "yarn") {
    return fail(ErrorCode::kUnsupported, "rotary scaling \"{}\"; none, linear and yarn are implemented",
                *type)
        .at(keys.full("rope.scaling.type"));
  }
  NIBBLE_TRY(const double factor, keys.positive("rope.scaling.factor"));
  Json scaling = {{"rope_type", *type}, {"factor", factor}};
  if (*type == "yarn") {
    NIBBLE_TRY(const auto positions, keys.optional_size("rope.scaling.original_context_length"));
    if (positions) scaling["original_max_position_embeddings"] = *positions;
  }
  return scaling;
}

Expected<size_t> read_head_dim(const Keys& keys, size_t hidden_size, size_t num_attention_heads) {
  NIBBLE_TRY(const size_t head_dim, keys.size("attention.key_length", hidden_size / num_attention_heads));
  NIBBLE_TRY(const size_t value_dim, keys.size("attention.value_length", head_dim));
  NIBBLE_TRY(const size_t rotary_dim, keys.size("rope.dimension_count", head_dim));
  if (value_dim != head_dim || rotary_dim != head_dim || head_dim % 2 != 0) {
    return fail(ErrorCode::kUnsupported,
                "heads of {} elements for keys, {} for values, {} of them rotated; all three must be equal "
                "and even",
                head_dim, value_dim, rotary_dim)
        .at(keys.full("attention.key_length"));
  }
  return head_dim;
}

// What would make the model another one than the names of its tensors suggest.
Status refuse_variants(const Keys& keys) {
  for (const std::string_view key : {"expert_count", "attention.sliding_window"}) {
    NIBBLE_TRY(const auto value, keys.optional_size(key));
    if (value && *value > 0) {
      return fail(ErrorCode::kUnsupported, "{}: GGUF import has no experts and no sliding windows", *value)
          .at(keys.full(key))
          .with_fix("Use the model's safetensors files.");
    }
  }
  return {};
}

Status add_token_ids(const GgufHeader& header, GgufConfig& result) {
  for (const auto& [which, key] : {std::pair("bos", "bos_token_id"), std::pair("eos", "eos_token_id"),
                                   std::pair("padding", "pad_token_id")}) {
    NIBBLE_TRY(const auto id, gguf_token_id(header, which, result.vocab_size));
    if (!id) continue;
    result.config[key] = *id;
    result.generation_config[key] = *id;
  }
  // The end of a turn in a chat, where it is not the end of the text: generation stops at both.
  NIBBLE_TRY(const auto end_of_turn, gguf_token_id(header, "eot", result.vocab_size));
  const auto eos = result.generation_config.find("eos_token_id");
  if (end_of_turn && eos != result.generation_config.end() && *eos != *end_of_turn) {
    const uint64_t eos_id = eos->get<uint64_t>();
    *eos = Json::array({eos_id, *end_of_turn});
  }
  return {};
}

}  // namespace

Expected<std::optional<uint64_t>> gguf_token_id(const GgufHeader& header, std::string_view which,
                                                size_t vocab_size) {
  const std::string key = fmt::format("tokenizer.ggml.{}_token_id", which);
  NIBBLE_TRY(const auto id, gguf_integer(header, key));
  if (id && *id >= vocab_size) {
    return fail(ErrorCode::kDataLoss, "{}, but there are {} tokens", *id, vocab_size).at(key);
  }
  return id;
}

Expected<GgufConfig> make_gguf_config(const GgufFiles& files) {
  const GgufHeader& header = files.header;
  GgufConfig result;
  NIBBLE_TRY(result.architecture, find_architecture(header));
  const Keys keys{header, std::string(result.architecture->name) + "."};
  NIBBLE_RETURN_IF_ERROR(refuse_variants(keys));
  NIBBLE_TRY(result.dtype, choose_dtype(header));

  const auto embedding = header.tensors.find("token_embd.weight");
  if (embedding == header.tensors.end() || embedding->second.shape.size() != 2) {
    return fail(ErrorCode::kDataLoss, "the embedding is missing or not a matrix").at("token_embd.weight");
  }
  result.vocab_size = embedding->second.shape[0];
  NIBBLE_TRY(const size_t hidden_size, keys.size("embedding_length"));
  NIBBLE_TRY(const size_t intermediate_size, keys.size("feed_forward_length"));
  NIBBLE_TRY(const size_t max_positions, keys.size("context_length"));
  NIBBLE_TRY(result.num_hidden_layers, keys.size("block_count"));
  NIBBLE_TRY(result.num_attention_heads, keys.size("attention.head_count"));
  NIBBLE_TRY(result.num_key_value_heads, keys.size("attention.head_count_kv", result.num_attention_heads));
  NIBBLE_TRY(result.head_dim, read_head_dim(keys, hidden_size, result.num_attention_heads));
  NIBBLE_TRY(const double eps, keys.positive("attention.layer_norm_rms_epsilon"));
  NIBBLE_TRY(const double rope_theta, keys.positive("rope.freq_base", 10000.0));
  NIBBLE_TRY(const Json scaling, rope_scaling(keys, files, rope_theta, result.head_dim));

  Json& config = result.config;
  config["architectures"] = Json::array({result.architecture->class_name});
  config["model_type"] = result.architecture->model_type;
  config["hidden_act"] = "silu";
  config["hidden_size"] = hidden_size;
  config["intermediate_size"] = intermediate_size;
  config["num_hidden_layers"] = result.num_hidden_layers;
  config["num_attention_heads"] = result.num_attention_heads;
  config["num_key_value_heads"] = result.num_key_value_heads;
  config["head_dim"] = result.head_dim;
  config["max_position_embeddings"] = max_positions;
  config["vocab_size"] = result.vocab_size;
  config["rms_norm_eps"] = eps;
  config["rope_theta"] = rope_theta;
  config["rope_scaling"] = scaling;
  config["tie_word_embeddings"] = !header.tensors.contains("output.weight");
  if (result.architecture->name == "llama") {
    config["attention_bias"] = header.tensors.contains("blk.0.attn_q.bias");
    config["mlp_bias"] = header.tensors.contains("blk.0.ffn_gate.bias");
  }
  config["torch_dtype"] = torch_dtype_name(result.dtype);
  result.generation_config = Json::object();
  NIBBLE_RETURN_IF_ERROR(add_token_ids(header, result));
  return result;
}

}  // namespace nibble
