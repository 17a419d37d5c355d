#include "nibble/checkpoint/gguf_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "nibble/checkpoint/gguf_keys.h"
#include "nibble/checkpoint/gguf_quants.h"

namespace nibble {
namespace {

Expected<const GgufArchitecture*> find_architecture(const GgufHeader& header) {
  NIBBLE_TRY(const auto name, gguf_string(header, "general.architecture"));
  if (!name) return fail(ErrorCode::kDataLoss, "general.architecture is missing");
  return find_gguf_architecture(*name);
}

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

// One of the two lists of divisors of longrope: [rotary_dim / 2].
Expected<Json> read_long_rope_factors(std::string_view name, const GgufFiles& files, size_t rotary_dim) {
  const auto found = files.header.tensors.find(name);
  if (found == files.header.tensors.end()) {
    return fail(ErrorCode::kDataLoss, "is missing, but the other list of rotary factors is there").at(name);
  }
  const GgufTensor& tensor = found->second;
  if (tensor.type != GgmlType::kF32 || tensor.shape != Shape{rotary_dim / 2}) {
    return fail(ErrorCode::kDataLoss, "{} of shape [{}], but half of the {} rotated elements are F32 [{}]",
                ggml_type_info(tensor.type).name, fmt::join(tensor.shape, ", "), rotary_dim, rotary_dim / 2)
        .at(name);
  }
  const auto bytes = files.bytes_of(tensor);
  std::vector<float> stored(rotary_dim / 2);
  std::memcpy(stored.data(), bytes.data(), bytes.size());
  Json factors = Json::array();
  for (const float factor : stored) {
    if (!std::isfinite(factor) || !(factor > 0)) {
      return fail(ErrorCode::kDataLoss, "{} is not a positive number", factor).at(name);
    }
    factors.push_back(shortest_double(factor));
  }
  return factors;
}

constexpr std::string_view kLongFactors = "rope_factors_long.weight";
constexpr std::string_view kShortFactors = "rope_factors_short.weight";

// longrope (arXiv:2402.13753) has its factors in two tensors, and the length from which on the long ones
// count.
Expected<Json> long_rope_scaling(const GgufKeys& keys, const GgufFiles& files, size_t rotary_dim) {
  NIBBLE_TRY(const auto type, gguf_string(keys.header, keys.full("rope.scaling.type")));
  if (type && *type != "longrope") {
    return fail(ErrorCode::kDataLoss, "\"{}\", but the file has the factors of longrope", *type)
        .at(keys.full("rope.scaling.type"));
  }
  // "type" and nothing but the factors beside it: Transformers 4 takes no other for phi3.
  Json scaling = {{"type", "longrope"}};
  NIBBLE_TRY(scaling["short_factor"], read_long_rope_factors(kShortFactors, files, rotary_dim));
  NIBBLE_TRY(scaling["long_factor"], read_long_rope_factors(kLongFactors, files, rotary_dim));
  if (!keys.has("rope.scaling.attn_factor")) return scaling;
  NIBBLE_TRY(const double attention_factor, keys.positive("rope.scaling.attn_factor"));
  NIBBLE_TRY(const size_t original, keys.size("rope.scaling.original_context_length"));
  // What Transformers computes when it is not told.
  NIBBLE_TRY(const size_t positions, keys.size("context_length"));
  const double factor = static_cast<double>(positions) / static_cast<double>(original);
  const double usual =
      factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
  constexpr double kTolerance = 1e-6;  // the file's is a float32
  if (!std::isfinite(usual) || std::abs(attention_factor - usual) > kTolerance * usual) {
    scaling["attention_factor"] = attention_factor;
  }
  return scaling;
}

// null: no scaling.
Expected<Json> rope_scaling(const GgufKeys& keys, const GgufFiles& files, double rope_theta,
                            const GgufConfig& result) {
  const auto& tensors = keys.header.tensors;
  const bool is_long_rope = tensors.contains(kLongFactors) || tensors.contains(kShortFactors);
  for (const auto& entry : keys.header.metadata) {
    const std::string_view key = entry.first;
    const std::string prefix = keys.full("rope.scaling.");
    if (!key.starts_with(prefix)) continue;
    const std::string_view rest = key.substr(prefix.size());
    constexpr std::array<std::string_view, 4> kKnown = {"type", "factor", "original_context_length",
                                                        "finetuned"};
    const bool is_known = std::find(kKnown.begin(), kKnown.end(), rest) != kKnown.end();
    if (!is_known && !(is_long_rope && rest == "attn_factor")) {
      return fail(ErrorCode::kUnsupported, "this kind of rotary scaling is not implemented").at(key);
    }
  }
  if (is_long_rope) return long_rope_scaling(keys, files, result.rotary_dim);
  const auto factors = tensors.find("rope_freqs.weight");
  if (factors != tensors.end()) {
    return rope_scaling_from_factors(factors->second, files.bytes_of(factors->second), rope_theta,
                                     result.head_dim);
  }
  NIBBLE_TRY(const auto type, gguf_string(keys.header, keys.full("rope.scaling.type")));
  NIBBLE_TRY(const double old_factor, keys.positive("rope.scale_linear", 1.0));
  if (!type && old_factor != 1.0) return Json{{"rope_type", "linear"}, {"factor", old_factor}};
  if (!type || *type == "none") return Json();
  if (*type != "linear" && *type != "yarn") {
    return fail(
               ErrorCode::kUnsupported,
               "rotary scaling \"{}\" without its factors; none, linear, yarn, and longrope with two tensors "
               "of factors are implemented",
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

Status read_head_dims(const GgufKeys& keys, size_t hidden_size, GgufConfig& result) {
  NIBBLE_TRY(result.head_dim, keys.size("attention.key_length", hidden_size / result.num_attention_heads));
  NIBBLE_TRY(const size_t value_dim, keys.size("attention.value_length", result.head_dim));
  NIBBLE_TRY(result.rotary_dim, keys.size("rope.dimension_count", result.head_dim));
  const bool may_be_less = result.architecture->rotates_partly && result.rotary_dim < result.head_dim;
  if (value_dim != result.head_dim || (result.rotary_dim != result.head_dim && !may_be_less) ||
      result.head_dim % 2 != 0 || result.rotary_dim % 2 != 0) {
    return fail(ErrorCode::kUnsupported,
                "heads of {} elements for keys, {} for values, {} of them rotated; {} must be equal and even",
                result.head_dim, value_dim, result.rotary_dim,
                result.architecture->rotates_partly ? "the first two" : "all three")
        .at(keys.full("attention.key_length"));
  }
  return {};
}

// What would make the model another one than the names of its tensors suggest.
Status refuse_variants(const GgufKeys& keys, const GgufArchitecture& architecture) {
  for (const std::string_view key : {"expert_count", "attention.sliding_window"}) {
    if (architecture.has_sliding_window && key == "attention.sliding_window") continue;
    NIBBLE_TRY(const auto value, keys.optional_size(key));
    if (value && *value > 0) {
      return fail(ErrorCode::kUnsupported, "{}: GGUF import of {} has no experts and no sliding windows",
                  *value, architecture.name)
          .at(keys.full(key))
          .with_fix("Use the model's safetensors files.");
    }
  }
  return {};
}

// The end of a turn in a chat, where it is not the end of the text. Many files have the token without the
// key.
Expected<std::optional<uint64_t>> end_of_turn_id(const GgufHeader& header, const GgufConfig& result) {
  NIBBLE_TRY(const auto id, gguf_token_id(header, "eot", result.vocab_size));
  const std::string_view text = result.architecture->end_of_turn;
  if (id || text.empty()) return id;
  NIBBLE_TRY(const Json* const tokens, gguf_array(header, "tokenizer.ggml.tokens"));
  if (tokens == nullptr) return id;
  const auto found = std::find(tokens->begin(), tokens->end(), Json(text));
  const auto index = static_cast<size_t>(found - tokens->begin());
  return index < std::min(tokens->size(), result.vocab_size) ? std::optional<uint64_t>(index) : std::nullopt;
}

Status add_token_ids(const GgufHeader& header, GgufConfig& result) {
  for (const auto& [which, key] : {std::pair("bos", "bos_token_id"), std::pair("eos", "eos_token_id"),
                                   std::pair("padding", "pad_token_id")}) {
    NIBBLE_TRY(const auto id, gguf_token_id(header, which, result.vocab_size));
    if (!id) continue;
    result.config[key] = *id;
    result.generation_config[key] = *id;
  }
  NIBBLE_TRY(const auto end_of_turn, end_of_turn_id(header, result));  // generation stops there, too
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
  const GgufKeys keys{header, std::string(result.architecture->name) + "."};
  NIBBLE_RETURN_IF_ERROR(refuse_variants(keys, *result.architecture));
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
  NIBBLE_RETURN_IF_ERROR(read_head_dims(keys, hidden_size, result));
  NIBBLE_TRY(const double eps, keys.positive("attention.layer_norm_rms_epsilon"));
  NIBBLE_TRY(const double rope_theta, keys.positive("rope.freq_base", 10000.0));
  NIBBLE_TRY(const Json scaling, rope_scaling(keys, files, rope_theta, result));

  Json& config = result.config;
  config["architectures"] = Json::array({result.architecture->class_name});
  config["model_type"] = result.architecture->model_type;
  config[std::string(result.architecture->activation_key)] = result.architecture->activation;
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
  if (result.rotary_dim < result.head_dim) {
    config["partial_rotary_factor"] =
        static_cast<double>(result.rotary_dim) / static_cast<double>(result.head_dim);
  }
  if (scaling.contains("long_factor")) {
    NIBBLE_TRY(config["original_max_position_embeddings"], keys.size("rope.scaling.original_context_length"));
  }
  if (result.architecture->configure != nullptr) {
    NIBBLE_RETURN_IF_ERROR(result.architecture->configure(keys, result));
  }
  config["torch_dtype"] = torch_dtype_name(result.dtype);
  result.generation_config = Json::object();
  NIBBLE_RETURN_IF_ERROR(add_token_ids(header, result));
  return result;
}

}  // namespace nibble
