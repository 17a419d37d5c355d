#include "nibble/models/inspect_model.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "nibble/models/architecture.h"
#include "nibble/models/inspect_files.h"
#include "nibble/models/inspect_tokenizer.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

enum class TensorClass { kLinear, kEmbedding, kHead, kNorm, kOther };

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// "model.layers.0.mlp.down_proj.weight" -> "model.layers.0.mlp.down_proj"; "" for a bare name.
std::string_view module_of(std::string_view tensor) {
  const size_t dot = tensor.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : tensor.substr(0, dot);
}

std::string_view last_part(std::string_view name) { return name.substr(name.rfind('.') + 1); }

// By name, as the families of architectures call their parts.
TensorClass class_of_module(std::string_view module) {
  static const std::set<std::string_view> kHeads = {"lm_head", "embed_out", "output"};
  static const std::set<std::string_view> kEmbeddings = {
      "embed_tokens", "embed_positions", "wte", "wpe", "word_embeddings", "embed_in", "tok_embeddings"};
  if (kHeads.count(module) > 0) return TensorClass::kHead;  // at the top, not "attention.output"
  std::string_view last = last_part(module);
  // "q_layernorm.norms.0", a norm for each head (StableLM)
  if (last.find_first_not_of("0123456789") == last.npos) last = last_part(module_of(module));
  if (kEmbeddings.count(last) > 0) return TensorClass::kEmbedding;
  if (contains(last, "norm") || last.substr(0, 3) == "ln_") return TensorClass::kNorm;
  return TensorClass::kLinear;
}

bool is_buffer(std::string_view tensor) {  // saved by old versions, computed by everybody
  return last_part(tensor) == "inv_freq" || last_part(tensor) == "masked_bias";
}

size_t& bytes_of(BytesByClass& bytes, TensorClass kind) {
  switch (kind) {
    case TensorClass::kLinear:
      return bytes.linear;
    case TensorClass::kEmbedding:
      return bytes.embedding;
    case TensorClass::kHead:
      return bytes.head;
    case TensorClass::kNorm:
      return bytes.norm;
    case TensorClass::kOther:
      break;
  }
  return bytes.other;
}

// What the weights of the model are, gathered module by module.
struct WeightCensus {
  std::map<std::string, WeightLayout> layouts;  // of linear layers and the head, by module
  BytesByClass bytes;
  size_t parameters = 0;
  size_t expert_parameters = 0;  // of experts that a router chooses from
  size_t linear_weights = 0;
  size_t linear_weight_bytes = 0;
  size_t quantized_modules = 0;
};

// experts: the list of them in a block ("mlp.experts"); empty where there is none.
bool is_expert(std::string_view module, std::string_view experts) {
  return !experts.empty() && module.find(fmt::format(".{}.", experts)) != module.npos;
}

Status add_quantized(const Checkpoint& checkpoint, const QuantizationConfig& config,
                     int64_t config_group_size, const std::string& module, std::string_view experts,
                     WeightCensus& census) {
  NIBBLE_TRY(const ModuleSummary summary, summarize_module(checkpoint, module, config));
  int64_t group_size = static_cast<int64_t>(summary.group_size);
  // One group for all inputs is -1, unless the file calls it by its size.
  if (summary.group_size >= summary.in_features && group_size != config_group_size) group_size = -1;
  census.layouts[module] = {summary.format, summary.bits, group_size};
  const TensorClass kind = class_of_module(module);
  bytes_of(census.bytes, kind) += summary.stored_bytes;
  const size_t weights = num_elements({summary.out_features, summary.in_features}).value_or(0);
  census.parameters += weights;
  if (is_expert(module, experts)) census.expert_parameters += weights;
  ++census.quantized_modules;
  if (kind == TensorClass::kLinear) {
    census.linear_weights += weights;
    census.linear_weight_bytes += summary.stored_bytes;
  }
  return {};
}

void add_float(const std::string& name, const TensorInfo& info, bool tied, std::string_view experts,
               const WeightCensus& quantized, WeightCensus& census) {
  const std::string module(module_of(name));
  const bool is_weight = last_part(name) == "weight";
  TensorClass kind = class_of_module(module);
  if (kind == TensorClass::kLinear && !quantized.layouts.count(module)) {
    const bool is_matrix = info.shape.size() >= 2;
    const bool is_bias =
        last_part(name).ends_with("bias");  // DeepSeek's routers have e_score_correction_bias
    if (is_buffer(name) || (!is_matrix && !is_bias)) kind = TensorClass::kOther;
  }
  const size_t bytes = num_bytes(info).value_or(0);
  bytes_of(census.bytes, kind) += bytes;
  const bool is_copy = kind == TensorClass::kHead && tied;  // of the embedding
  if (is_buffer(name) || is_copy) return;
  const size_t elements = num_elements(info.shape).value_or(0);
  census.parameters += elements;
  if (is_expert(module, experts)) census.expert_parameters += elements;
  if (kind == TensorClass::kLinear && info.shape.size() >= 2) {
    census.linear_weights += elements;
    census.linear_weight_bytes += bytes;
  }
  if (is_weight && info.shape.size() == 2 && (kind == TensorClass::kLinear || kind == TensorClass::kHead)) {
    census.layouts[module] = {std::string(torch_dtype_name(info.dtype)),
                              static_cast<int>(dtype_bits(info.dtype)), 0};
  }
}

Expected<WeightCensus> count_weights(const Checkpoint& checkpoint,
                                     const std::optional<QuantizationConfig>& config, bool tied,
                                     std::string_view experts) {
  WeightCensus census;
  std::set<std::string> consumed;
  if (config) {
    int64_t group_size = 0;
    if (const auto* gptq = std::get_if<GPTQConfig>(&*config)) group_size = gptq->group_size;
    if (const auto* awq = std::get_if<AwqConfig>(&*config)) group_size = awq->group_size;
    for (const std::string& module : quantized_modules(checkpoint)) {
      NIBBLE_RETURN_IF_ERROR(add_quantized(checkpoint, *config, group_size, module, experts, census));
      for (std::string& name : tensors_of_module(checkpoint, module)) consumed.insert(std::move(name));
    }
  }
  const WeightCensus quantized = census;
  for (const auto& [name, info] : checkpoint.tensors()) {
    if (consumed.count(name) == 0) add_float(name, info, tied, experts, quantized, census);
  }
  return census;
}

// The layout of most modules, and the others by name.
void split_layouts(const WeightCensus& census, ModelSummary& summary) {
  std::vector<std::pair<WeightLayout, size_t>> counts;
  for (const auto& [module, layout] : census.layouts) {
    const WeightLayout& wanted = layout;
    const auto found =
        std::find_if(counts.begin(), counts.end(), [&](const auto& count) { return count.first == wanted; });
    if (found == counts.end()) {
      counts.emplace_back(layout, 1);
    } else {
      ++found->second;
    }
  }
  const auto most = std::max_element(counts.begin(), counts.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most == counts.end()) return;
  summary.layout = most->first;
  for (const auto& [module, layout] : census.layouts) {
    // That a head stays in float is the rule, not an exception.
    const bool usual_head = layout.group_size == 0 && class_of_module(module) == TensorClass::kHead;
    if (layout != summary.layout && !usual_head) summary.exceptions.push_back({module, layout});
  }
}

// Sizes under their names in config.json, whichever of them there are.
Json config_values(const Json& json) {
  Json out = Json::object();
  for (const char* const key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "vocab_size", "max_position_embeddings", "hidden_act", "tie_word_embeddings",
        "sliding_window", "rope_theta", "rope_scaling", "rope_parameters", "torch_dtype", "dtype"}) {
    if (json.contains(key) && !json[key].is_null()) out[key] = json[key];
  }
  return out;
}

std::optional<size_t> context_length(const Json& json) {
  for (const char* const key :
       {"max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx"}) {
    if (json.contains(key) && json[key].is_number_unsigned()) return json[key].get<size_t>();
  }
  return std::nullopt;
}

void fill_from_config(const PretrainedConfig& config, ModelSummary& summary) {
  if (config.max_position_embeddings > 0) summary.context_length = config.max_position_embeddings;
  for (const auto& [key, value] :
       {std::pair("hidden_size", config.hidden_size),
        std::pair("intermediate_size", config.intermediate_size),
        std::pair("num_hidden_layers", config.num_hidden_layers),
        std::pair("num_attention_heads", config.num_attention_heads),
        std::pair("num_key_value_heads", config.num_key_value_heads), std::pair("head_dim", config.head_dim),
        std::pair("vocab_size", config.vocab_size)}) {
    if (value > 0) summary.config[key] = value;
  }
  // A key and a value of half floats per layer and key-value head.
  const auto values = num_elements(
      {config.num_hidden_layers, config.num_key_value_heads, config.head_dim + config.value_head_dim});
  if (values && *values > 0) summary.kv_bytes_per_token = *values * sizeof(uint16_t);
}

Status find_tokenizer(const ModelFiles& files, ModelSummary& summary) {
  NIBBLE_TRY(const TokenizerFile found, find_tokenizer_file(files));
  NIBBLE_TRY(const auto jinja, files.read("chat_template.jinja"));
  const Json& config = found.tokenizer_config;
  summary.chat_template = jinja || (config.is_object() && !config.value("chat_template", Json()).is_null());
  const bool is_usual = found.file.empty() || found.file == "tokenizer.json";
  summary.tokenizer = is_usual ? found.kind : fmt::format("{} ({})", found.kind, found.file);
  return {};
}

double bits_each(size_t bytes, size_t weights) {
  return weights > 0 ? static_cast<double>(bytes) * 8.0 / static_cast<double>(weights) : 0.0;
}

}  // namespace

Expected<ModelSummary> inspect_model(const ModelFiles& files) {
  NIBBLE_TRY(const InspectedFiles opened, open_inspected(files));
  NIBBLE_RETURN_IF_ERROR(at(files.name, check_tensors(opened)));
  const Json& json = opened.json;
  ModelSummary summary;
  summary.model = files.name;
  summary.model_type = opened.model_type;
  summary.supported = opened.supported;
  const Json::json_pointer first_architecture("/architectures/0");
  if (json.contains(first_architecture) && json[first_architecture].is_string()) {
    summary.architecture = json[first_architecture].get<std::string>();
  }
  summary.config = config_values(json);
  summary.context_length = context_length(json);
  if (opened.config) fill_from_config(*opened.config, summary);

  const std::optional<QuantizationConfig>& quantization = opened.quantization.config;
  summary.method = quantization ? std::string(quant_method(*quantization)) : "none";
  const bool tied = opened.config ? opened.config->tie_word_embeddings
                                  : json.value("tie_word_embeddings", Json(false)) == true;
  DecoderSpec spec;
  if (opened.supported) {
    NIBBLE_TRY(spec, make_decoder_spec(*opened.config));
  }
  NIBBLE_TRY(const WeightCensus census,
             at(files.name, count_weights(*opened.checkpoint, quantization, tied, spec.names.block.experts)));
  split_layouts(census, summary);
  summary.quantized_modules = census.quantized_modules;
  summary.parameters = census.parameters;
  summary.active_parameters = census.parameters;
  if (spec.num_experts > 0) {
    const size_t each = census.expert_parameters / spec.num_experts;  // in all blocks
    summary.active_parameters -= each * (spec.num_experts - spec.experts_per_token);
  }
  summary.bytes = census.bytes;
  summary.file_bytes = opened.checkpoint->file_bytes();
  summary.linear_bits_per_weight = bits_each(census.linear_weight_bytes, census.linear_weights);
  summary.bits_per_weight = bits_each(census.bytes.total(), census.parameters);
  NIBBLE_RETURN_IF_ERROR(at(files.name, find_tokenizer(files, summary)));
  return summary;
}

}  // namespace nibble
