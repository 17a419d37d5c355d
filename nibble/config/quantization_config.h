#ifndef NIBBLE_CONFIG_QUANTIZATION_CONFIG_H_
#define NIBBLE_CONFIG_QUANTIZATION_CONFIG_H_

// quantization_config: GPTQConfig, AwqConfig, BitsAndBytesConfig and CompressedTensorsConfig of
// Transformers, with their keys, defaults and validation rules (docs/formats/quantization_config.md).

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "nibble/base/dtype.h"
#include "nibble/base/json.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble {

// A pattern of GPTQModel's `dynamic` and what it changes for the modules that it matches.
struct DynamicRule {
  std::string pattern;  // PCRE, anchored at the start of the module name, without "+:" or "-:"
  bool skip = false;    // "-:": the module stays as it is
  Json overrides = Json::object();

  bool operator==(const DynamicRule&) const = default;
};

struct GPTQConfig {
  int bits = 4;
  int64_t group_size = 128;  // -1: all inputs
  bool desc_act = false;
  bool sym = true;
  bool true_sequential = true;
  bool static_groups = false;
  double damp_percent = 0.1;
  bool act_group_aware = true;
  bool lm_head = false;
  std::string checkpoint_format = "gptq";  // gptq, gptq_v2, gptq_p
  std::string backend = "auto";
  std::vector<DynamicRule> dynamic = {};  // "-:" rules first, then in the order of the file
  // Of single modules, by their whole names, before those of `dynamic` (AutoRound's extra_config).
  std::map<std::string, DynamicRule, std::less<>> module_rules = {};
  std::vector<std::string> modules_in_block_to_quantize = {};
  std::vector<std::string> quantizer = {};  // meta.quantizer: who wrote it, "gptqmodel:7.7.0"
  // What to calibrate with while quantizing, in the words of --dataset; not a part of the file.
  std::string dataset = {};
  bool has_sym = false;  // false: the key is missing, as in very old files
  Json meta = {};        // more entries of meta, for what is written: {"mse": 2.4, "nibble": {...}}
  Json json = {};        // every key of the file, also the unknown ones

  static Expected<GPTQConfig> from_json(const Json& json);
  // A file's keys are written back as they were. A new configuration has the keys of GPTQModel, which
  // Transformers, AutoGPTQ and vLLM read, too: what only mattered while quantizing stands in meta.
  Json to_json() const;
  Status validate() const;
};

struct AwqConfig {
  int bits = 4;
  int64_t group_size = 128;
  bool zero_point = true;
  std::string version = "gemm";  // gemm, gemv, gemv_fast, llm-awq, exllama, ipex, marlin
  std::string backend = "auto";
  std::vector<std::string> modules_to_not_convert = {};
  Json meta = {};  // entries of meta, which only Nibble and GPTQModel read; empty: no meta
  Json json = {};

  static Expected<AwqConfig> from_json(const Json& json);
  Json to_json() const;
  Status validate() const;
};

struct BitsAndBytesConfig {
  bool load_in_8bit = false;
  bool load_in_4bit = false;
  double llm_int8_threshold = 6.0;
  std::optional<std::vector<std::string>> llm_int8_skip_modules = {};  // nothing: the default list
  bool llm_int8_enable_fp32_cpu_offload = false;
  bool llm_int8_has_fp16_weight = false;
  std::optional<DType> bnb_4bit_compute_dtype = {};  // nothing: float32
  std::string bnb_4bit_quant_type = "fp4";           // fp4, nf4
  bool bnb_4bit_use_double_quant = false;
  std::optional<DType> bnb_4bit_quant_storage = {};  // nothing: uint8
  Json json = {};

  static Expected<BitsAndBytesConfig> from_json(const Json& json);
  Json to_json() const;
  Status validate() const;
};

// One of config_groups of compressed-tensors: how the modules are stored that `targets` match.
struct CompressedTensorsGroup {
  std::string name = {};                          // "group_0"
  std::vector<std::string> targets = {"Linear"};  // "Linear", names of modules, "re:PATTERN"
  int bits = 4;                                   // 2, 4, 8
  bool sym = true;                                // no zero points are stored
  int64_t group_size = 128;                       // -1: all inputs (strategy "channel")
  // How inputs were ordered while quantizing: "group" stores weight_g_idx, "weight" and "static" leave no
  // trace; empty: in their own order.
  std::string actorder = {};

  bool operator==(const CompressedTensorsGroup&) const = default;
};

// Of its layouts "pack-quantized" alone: weights as integers, activations in floating point.
struct CompressedTensorsConfig {
  std::vector<CompressedTensorsGroup> groups = {};
  std::vector<std::string> ignore = {};  // names and "re:PATTERN" of modules that stay as they are
  Json json = {};

  static Expected<CompressedTensorsConfig> from_json(const Json& json);
  Json to_json() const;  // a file's own keys as they were
  Status validate() const;
};

// The group that says how `module` is stored: the first one whose target matches, or the only one there is.
// kDataLoss where none matches.
Expected<const CompressedTensorsGroup*> find_group(const CompressedTensorsConfig& config,
                                                   std::string_view module);

using QuantizationConfig = std::variant<GPTQConfig, AwqConfig, BitsAndBytesConfig, CompressedTensorsConfig>;

// "gptq", "awq", "bitsandbytes", "compressed-tensors".
std::string_view quant_method(const QuantizationConfig& config);
// "none", "gptq", "awq", "bitsandbytes nf4", "bitsandbytes int8": how reports name it.
std::string quantization_name(const std::optional<QuantizationConfig>& config);
Json to_json(const QuantizationConfig& config);

// Whether a quant_method names AutoRound: "auto-round", "intel/auto-round" (2024) ...
bool is_auto_round(std::string_view quant_method);
// AutoRound's configuration as the GPTQ or AWQ one that describes the same tensors.
Expected<QuantizationConfig> auto_round_config_from_json(const Json& json);

// As AutoQuantizationConfig.from_dict: a true load_in_8bit / load_in_4bit means bitsandbytes
// whatever quant_method says; otherwise quant_method decides.
Expected<QuantizationConfig> quantization_config_from_json(const Json& json);

// Where a value came from, for -v.
struct ConfigOrigin {
  std::string key;
  std::string value;
  std::string origin;  // "config.json", "quantize_config.json", "flag", "default"
};

// The first of kQuantizeConfigFiles that the model has.
Expected<std::optional<Json>> read_quantize_config(const ModelFiles& files);

struct ResolvedQuantization {
  std::optional<QuantizationConfig> config;  // nothing: a float model
  bool pre_quantized = false;                // false with a config: quantize while loading
  std::vector<ConfigOrigin> origins;
};

// config_json: the model's config.json. quantize_config: what read_quantize_config gives
// (an error unless it agrees with config.json on bits,
// group_size, sym, desc_act and format). user: what the caller passed; merged as Transformers does
// (the checkpoint wins but for loading attributes; another class is an error).
Expected<ResolvedQuantization> resolve_quantization(const Json& config_json,
                                                    const std::optional<Json>& quantize_config,
                                                    const std::optional<QuantizationConfig>& user);

// The rule for one module, if any: of module_rules, or of `dynamic`, where the first match wins, "-:" rules
// are tried first. An invalid pattern is an error that shows it.
Expected<const DynamicRule*> find_dynamic_rule(const GPTQConfig& config, std::string_view module);

}  // namespace nibble

#endif  // NIBBLE_CONFIG_QUANTIZATION_CONFIG_H_
