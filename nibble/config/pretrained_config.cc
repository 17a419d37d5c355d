#include "nibble/config/pretrained_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>

#include "nibble/config/fields.h"
#include "nibble/config/model_types.h"
#include "nibble/config/rope_parameters.h"

namespace nibble {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 31;
// No model has more than some hundred; per-layer lists are filled before any tensor confirms the number.
constexpr int64_t kMaxLayers = 10'000;
// Of the parts of a head that stand in the file by themselves: their sum times the heads is a size, too.
constexpr int64_t kMaxHeadDim = int64_t{1} << 20;

// Transformers' ACT2FN.
constexpr std::array<std::string_view, 20> kActivations = {
    "gelu",    "gelu_10",    "gelu_accurate", "gelu_fast", "gelu_new",   "gelu_python", "gelu_pytorch_tanh",
    "laplace", "leaky_relu", "linear",        "mish",      "quick_gelu", "relu",        "relu2",
    "relu6",   "sigmoid",    "silu",          "swish",     "tanh",       "xielu"};

// Sizes: all of them missing or wrong are reported; what is wrong stays 0.
class SizeReader {
 public:
  SizeReader(const Json& json, Faults& faults) : reader_(json, faults), json_(json), faults_(faults) {}

  // Under one of the names, of which the first is the type's own.
  size_t required(std::initializer_list<std::string_view> names, int64_t high = kMaxSize) {
    const auto found =
        std::find_if(names.begin(), names.end(), [&](std::string_view name) { return json_.contains(name); });
    const std::string_view key = found == names.end() ? *names.begin() : *found;
    if (found == names.end()) {
      faults_.add("{} is missing", key);
      return 0;
    }
    if (json_[key].is_null()) {
      faults_.add("{} is null, but must be a positive integer", key);
      return 0;
    }
    return optional(key, 0, high);
  }
  size_t optional(std::string_view key, size_t fallback, int64_t high = kMaxSize) {
    auto value = static_cast<int64_t>(fallback);
    reader_.read_integer({key}, 1, high, fmt::format("a positive integer, at most {}", high), value);
    return static_cast<size_t>(value);
  }

 private:
  FieldReader reader_;
  const Json& json_;
  Faults& faults_;
};

size_t read_intermediate_size(const ModelType& type, const PretrainedConfig& config, SizeReader& sizes) {
  if (!type.intermediate_is_optional) return sizes.required({type.intermediate_size});
  if (!type.intermediate_size.empty()) return sizes.optional(type.intermediate_size, 4 * config.hidden_size);
  // MPT: Transformers' MptMLP is four times as wide whatever expansion_ratio says.
  return 4 * config.hidden_size;
}

size_t read_kv_heads(const ModelType& type, const PretrainedConfig& config, SizeReader& sizes,
                     Faults& faults) {
  const size_t heads = config.num_attention_heads;
  FieldReader reader(config.json, faults);
  bool multi_query = true;
  bool new_decoder = false;
  switch (type.kv_heads) {
    case KvHeads::kKey:
      return sizes.optional("num_key_value_heads", heads);
    case KvHeads::kAll:
      return heads;
    case KvHeads::kMultiQuery:
      reader.read({"multi_query"}, multi_query);
      return multi_query ? 1 : heads;
    case KvHeads::kFalcon:
      reader.read({"multi_query"}, multi_query);
      reader.read({"new_decoder_architecture"}, new_decoder);
      if (new_decoder) return sizes.optional("num_kv_heads", heads);
      return multi_query ? 1 : heads;
  }
  return heads;
}

void read_heads(const ModelType& type, PretrainedConfig& config, SizeReader& sizes, Faults& faults) {
  config.num_key_value_heads = read_kv_heads(type, config, sizes, faults);
  const size_t heads = config.num_attention_heads;
  if (heads == 0 || config.hidden_size == 0) return;  // reported already
  if (config.num_key_value_heads != 0 && heads % config.num_key_value_heads != 0) {
    faults.add("num_key_value_heads is {}, which does not divide {} {}", config.num_key_value_heads,
               type.num_attention_heads, heads);
  }
  if (type.latent_attention) {
    // head_dim in the file means the rotated part.
    config.rope_head_dim = sizes.required({"qk_rope_head_dim"}, kMaxHeadDim);
    config.value_head_dim = sizes.required({"v_head_dim"}, kMaxHeadDim);
    const size_t plain = sizes.required({"qk_nope_head_dim"}, kMaxHeadDim);
    if (config.rope_head_dim != 0 && plain != 0) config.head_dim = plain + config.rope_head_dim;
    return;
  }
  if (config.json.contains("head_dim") && !config.json["head_dim"].is_null()) {
    config.head_dim = sizes.optional("head_dim", 0);
  } else if (type.default_head_dim != 0) {
    config.head_dim = type.default_head_dim;
  } else if (config.hidden_size % heads != 0) {
    faults.add("{} is {}, which {} {} does not divide, and there is no head_dim", type.hidden_size,
               config.hidden_size, type.num_attention_heads, heads);
  } else {
    config.head_dim = config.hidden_size / heads;
  }
  config.value_head_dim = config.rope_head_dim = config.head_dim;
}

void read_activation(const ModelType& type, PretrainedConfig& config, Faults& faults) {
  FieldReader reader(config.json, faults);
  config.hidden_act = type.default_act;
  std::string_view key = type.hidden_act;
  if (key == "hidden_activation" && !has_field(config.json, {key})) {
    // The first Gemma files say "gelu" under the old key and mean the tanh approximation.
    key = "hidden_act";
    reader.read({key}, config.hidden_act);
    if (config.hidden_act == "gelu") config.hidden_act = type.default_act;
  } else if (!key.empty()) {
    reader.read({key}, config.hidden_act);
  }
  if (std::find(kActivations.begin(), kActivations.end(), config.hidden_act) == kActivations.end()) {
    faults.add("{} is {}, but must be one of {}", key, shown(config.hidden_act), joined(kActivations));
  }
  if (config.hidden_act == "swish") config.hidden_act = "silu";
}

bool layer_slides(SlidingRule rule, size_t layer, size_t max_window_layers, size_t pattern) {
  switch (rule) {
    case SlidingRule::kAll:
    case SlidingRule::kUseFlag:
      return true;
    case SlidingRule::kFromMaxWindow:
      return layer >= max_window_layers;
    case SlidingRule::kPattern:
      return (layer + 1) % pattern != 0;
    case SlidingRule::kNone:
    case SlidingRule::kLayerTypesOnly:
      return false;
  }
  return false;
}

void read_layer_types(PretrainedConfig& config, Faults& faults) {
  FieldReader(config.json, faults).read_strings({"layer_types"}, config.layer_types);
  for (const std::string& layer_type : config.layer_types) {
    if (layer_type == "full_attention" || layer_type == "sliding_attention") continue;
    faults.add("layer_types has {}, but must hold full_attention or sliding_attention", shown(layer_type));
    break;
  }
  if (config.num_hidden_layers != 0 && config.layer_types.size() != config.num_hidden_layers) {
    faults.add("layer_types has {} entries, but num_hidden_layers is {}", config.layer_types.size(),
               config.num_hidden_layers);
  }
}

auto count_sliding(const PretrainedConfig& config) {
  return std::count(config.layer_types.begin(), config.layer_types.end(), "sliding_attention");
}

void read_sliding(const ModelType& type, PretrainedConfig& config, SizeReader& sizes, Faults& faults) {
  const SlidingRule rule = type.sliding;
  FieldReader reader(config.json, faults);
  const bool has_flag = rule == SlidingRule::kFromMaxWindow || rule == SlidingRule::kUseFlag ||
                        rule == SlidingRule::kLayerTypesOnly;
  bool slides = rule != SlidingRule::kNone;
  if (has_flag) {
    slides = false;
    reader.read({"use_sliding_window"}, slides);
  }
  const auto in_file = config.json.find("sliding_window");
  size_t window = type.sliding_window;
  if (in_file != config.json.end())
    window = in_file->is_null() || !slides ? 0 : sizes.optional("sliding_window", 0);
  slides = slides && window != 0;

  if (has_field(config.json, {"layer_types"})) {
    read_layer_types(config, faults);
    if (rule == SlidingRule::kNone && count_sliding(config) > 0) {
      window = sizes.optional("sliding_window", 0);
      slides = true;
      if (window == 0) faults.add("layer_types has sliding_attention, but sliding_window is missing");
    }
  } else if (slides && rule == SlidingRule::kLayerTypesOnly) {
    faults.add("use_sliding_window is true, but layer_types is missing");
  } else {
    int64_t max_window_layers = 0;
    if (rule == SlidingRule::kFromMaxWindow && slides) {
      // Transformers would take its class default, 28 layers, for a model that has some other number.
      if (!has_field(config.json, {"max_window_layers"})) faults.add("max_window_layers is missing");
      reader.read_integer({"max_window_layers"}, 0, kMaxSize, "an integer from 0", max_window_layers);
    }
    size_t pattern = type.sliding_pattern;
    if (rule == SlidingRule::kPattern && type.model_type != "gemma2") {
      const std::string_view key = config.json.contains("sliding_window_pattern") ? "sliding_window_pattern"
                                                                                  : "_sliding_window_pattern";
      pattern = sizes.optional(key, pattern);
    }
    for (size_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      const bool this_one =
          slides && layer_slides(rule, layer, static_cast<size_t>(max_window_layers), pattern);
      config.layer_types.push_back(this_one ? "sliding_attention" : "full_attention");
    }
  }
  if (count_sliding(config) == 0) return;
  if (slides) {
    config.sliding_window = window;
  } else {  // a file may name the layers and switch the window off
    std::fill(config.layer_types.begin(), config.layer_types.end(), "full_attention");
  }
}

void read_dtype(PretrainedConfig& config, Faults& faults) {
  std::optional<DType> dtype;
  // Transformers 5 writes dtype, 4 torch_dtype; of a file that has both the newer key counts.
  const std::string_view key = has_field(config.json, {"dtype"}) ? "dtype" : "torch_dtype";
  FieldReader(config.json, faults).read_dtype({key}, dtype);
  if (!dtype) return;
  constexpr std::array kFloats = {DType::kF16, DType::kBF16, DType::kF32, DType::kF64};
  if (std::find(kFloats.begin(), kFloats.end(), *dtype) == kFloats.end()) {
    faults.add("{} is {}, but must be float16, bfloat16, float32 or float64", key, shown(config.json[key]));
    return;
  }
  config.dtype = *dtype;
  config.has_dtype = true;
}

void read_norm_eps(const ModelType& type, PretrainedConfig& config, Faults& faults) {
  config.norm_eps = type.default_norm_eps;
  if (type.norm_eps.empty()) return;
  FieldReader(config.json, faults).read({type.norm_eps}, config.norm_eps);
  if (!(config.norm_eps >= 0.0))
    faults.add("{} is {}, but must not be negative", type.norm_eps, config.norm_eps);
}

Expected<const ModelType*> read_model_type(const Json& json, Faults& faults, PretrainedConfig& config) {
  FieldReader reader(json, faults);
  reader.read({"model_type"}, config.model_type);
  reader.read_strings({"architectures"}, config.architectures);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  if (config.model_type.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "model_type is missing; without it nothing says what the model is");
  }
  const ModelType* type = find_model_type(config.model_type);
  if (type == nullptr) {
    return fail(ErrorCode::kUnsupported, "model_type is {}, which is not known", shown(config.model_type))
        .with_fix(fmt::format("Known are: {}.", known_model_types()));
  }
  return type;
}

}  // namespace

Expected<PretrainedConfig> PretrainedConfig::from_json(const Json& json) {
  if (!json.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "it is {}, but must be an object", json_type_name(json));
  }
  Faults faults;
  PretrainedConfig config;
  config.json = json;
  NIBBLE_TRY(const ModelType* const type, read_model_type(json, faults, config));

  SizeReader sizes(json, faults);
  config.vocab_size = sizes.required({"vocab_size"});
  config.hidden_size = sizes.required({type->hidden_size, "hidden_size", type->older_hidden_size});
  config.num_hidden_layers = sizes.required({type->num_hidden_layers, "num_hidden_layers"}, kMaxLayers);
  config.num_attention_heads = sizes.required({type->num_attention_heads, "num_attention_heads"});
  config.intermediate_size = read_intermediate_size(*type, config, sizes);
  if (!type->max_position_embeddings.empty()) {
    const std::initializer_list<std::string_view> keys = {type->max_position_embeddings,
                                                          "max_position_embeddings"};
    const size_t fallback = type->default_max_position_embeddings;
    config.max_position_embeddings =
        fallback > 0 ? sizes.optional(type->max_position_embeddings, fallback) : sizes.required(keys);
  }
  read_heads(*type, config, sizes, faults);
  read_activation(*type, config, faults);
  read_norm_eps(*type, config, faults);
  config.tie_word_embeddings = type->tie_word_embeddings;
  FieldReader reader(json, faults);
  reader.read({"tie_word_embeddings"}, config.tie_word_embeddings);
  read_dtype(config, faults);
  read_sliding(*type, config, sizes, faults);
  reader.read_token_ids({"bos_token_id"}, config.bos_token_id);
  reader.read_token_ids({"eos_token_id"}, config.eos_token_id);
  reader.read_token_id({"pad_token_id"}, config.pad_token_id);
  if (type->has_rope && config.head_dim != 0) read_rope(*type, config.rope_head_dim, config, faults);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  return config;
}

Expected<double> PretrainedConfig::get_number(std::string_view key, double fallback) const {
  Faults faults;
  FieldReader(json, faults).read({key}, fallback);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  return fallback;
}

Expected<size_t> PretrainedConfig::get_size(std::string_view key, size_t fallback) const {
  Faults faults;
  auto value = static_cast<int64_t>(fallback);
  FieldReader(json, faults)
      .read_integer({key}, 0, kMaxSize, fmt::format("an integer from 0 to {}", kMaxSize), value);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  return static_cast<size_t>(value);
}

Expected<bool> PretrainedConfig::get_bool(std::string_view key, bool fallback) const {
  Faults faults;
  FieldReader(json, faults).read({key}, fallback);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  return fallback;
}

Expected<std::string> PretrainedConfig::get_string(std::string_view key, std::string_view fallback) const {
  Faults faults;
  std::string value(fallback);
  FieldReader(json, faults).read({key}, value);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  return value;
}

Expected<std::optional<double>> PretrainedConfig::get_optional_number(std::string_view key) const {
  Faults faults;
  std::optional<double> value;
  FieldReader(json, faults).read({key}, value);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  return value;
}

}  // namespace nibble
