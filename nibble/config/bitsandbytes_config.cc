// BitsAndBytesConfig. Types are checked as strictly as Transformers does: 6 is no llm_int8_threshold.

#include <algorithm>
#include <array>

#include "nibble/config/config_fields.h"
#include "nibble/config/fields.h"
#include "nibble/config/quantization_config.h"

namespace nibble {
namespace {

constexpr std::array kComputeDtypes = {DType::kF32, DType::kF16, DType::kBF16, DType::kF64};
constexpr std::array kStorageDtypes = {DType::kF16, DType::kF32, DType::kI8,
                                       DType::kU8,  DType::kF64, DType::kBF16};

template <size_t n>
void check_dtype(std::string_view key, std::optional<DType> dtype, const std::array<DType, n>& allowed,
                 Faults& faults) {
  if (!dtype || std::find(allowed.begin(), allowed.end(), *dtype) != allowed.end()) return;
  std::vector<std::string_view> names;
  for (const DType one : allowed) names.push_back(torch_dtype_name(one));
  faults.add("{} is \"{}\", but must be one of {}", key, torch_dtype_name(*dtype), joined(names));
}

void check_values(const BitsAndBytesConfig& config, Faults& faults) {
  if (config.load_in_8bit && config.load_in_4bit) {
    faults.add("load_in_4bit and load_in_8bit are both true, but only one can be");
  }
  if (!config.load_in_8bit && !config.load_in_4bit) {
    faults.add("neither load_in_4bit nor load_in_8bit is true");
  }
  if (!(config.llm_int8_threshold >= 0.0)) {
    faults.add("llm_int8_threshold is {}, but must be 0 (off) or positive", config.llm_int8_threshold);
  }
  if (config.bnb_4bit_quant_type != "fp4" && config.bnb_4bit_quant_type != "nf4") {
    faults.add("bnb_4bit_quant_type is {}, but must be one of fp4, nf4", shown(config.bnb_4bit_quant_type));
  }
  check_dtype("bnb_4bit_compute_dtype", config.bnb_4bit_compute_dtype, kComputeDtypes, faults);
  check_dtype("bnb_4bit_quant_storage", config.bnb_4bit_quant_storage, kStorageDtypes, faults);
}

}  // namespace

Expected<BitsAndBytesConfig> BitsAndBytesConfig::from_json(const Json& json) {
  Faults faults;
  BitsAndBytesConfig config;
  config.json = with_lower_case_keys(json, faults);
  FieldReader reader(config.json, faults);

  // GPTQModel calls a layout of its own "bitsandbytes" too; it has neither of Transformers' flags.
  if (has_field(config.json, {"format"}) && !has_field(config.json, bnb_fields::kLoadIn4bit) &&
      !has_field(config.json, bnb_fields::kLoadIn8bit)) {
    faults.add_unsupported("this is GPTQModel's own bitsandbytes layout",
                           "Quantize the model with Transformers and bitsandbytes, or with nibble quantize.");
    return Failure(std::move(faults.status()).error());
  }
  reader.read(bnb_fields::kLoadIn8bit, config.load_in_8bit);
  reader.read(bnb_fields::kLoadIn4bit, config.load_in_4bit);
  if (const Json* threshold = reader.find({"llm_int8_threshold"})) {
    if (threshold->is_number_float()) {
      config.llm_int8_threshold = threshold->get<double>();
    } else {
      faults.add("llm_int8_threshold is {}, but must be a float such as 6.0", shown(*threshold));
    }
  }
  if (has_field(config.json, {"llm_int8_skip_modules"})) {
    config.llm_int8_skip_modules.emplace();
    reader.read_strings({"llm_int8_skip_modules"}, *config.llm_int8_skip_modules);
  }
  reader.read({"llm_int8_enable_fp32_cpu_offload"}, config.llm_int8_enable_fp32_cpu_offload);
  reader.read({"llm_int8_has_fp16_weight"}, config.llm_int8_has_fp16_weight);
  reader.read_dtype({"bnb_4bit_compute_dtype"}, config.bnb_4bit_compute_dtype);
  reader.read({"bnb_4bit_quant_type"}, config.bnb_4bit_quant_type);
  reader.read({"bnb_4bit_use_double_quant"}, config.bnb_4bit_use_double_quant);
  reader.read_dtype({"bnb_4bit_quant_storage"}, config.bnb_4bit_quant_storage);
  check_values(config, faults);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  return config;
}

Status BitsAndBytesConfig::validate() const {
  Faults faults;
  check_values(*this, faults);
  return faults.status();
}

Json BitsAndBytesConfig::to_json() const {
  Json out = json;
  if (!out.is_object()) out = Json::object();
  out["quant_method"] = "bitsandbytes";
  out["load_in_4bit"] = load_in_4bit;
  out["load_in_8bit"] = load_in_8bit;
  out["_load_in_4bit"] = load_in_4bit;
  out["_load_in_8bit"] = load_in_8bit;
  out["bnb_4bit_quant_type"] = bnb_4bit_quant_type;
  out["bnb_4bit_use_double_quant"] = bnb_4bit_use_double_quant;
  out["bnb_4bit_compute_dtype"] = torch_dtype_name(bnb_4bit_compute_dtype.value_or(DType::kF32));
  out["bnb_4bit_quant_storage"] = torch_dtype_name(bnb_4bit_quant_storage.value_or(DType::kU8));
  out["llm_int8_threshold"] = llm_int8_threshold;
  out["llm_int8_skip_modules"] = llm_int8_skip_modules ? Json(*llm_int8_skip_modules) : Json(nullptr);
  out["llm_int8_enable_fp32_cpu_offload"] = llm_int8_enable_fp32_cpu_offload;
  out["llm_int8_has_fp16_weight"] = llm_int8_has_fp16_weight;
  return out;
}

}  // namespace nibble
