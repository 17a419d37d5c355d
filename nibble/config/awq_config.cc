// AwqConfig: the keys of Transformers, AutoAWQ and GPTQModel.

#include <algorithm>
#include <array>
#include <limits>

#include "nibble/base/text.h"
#include "nibble/config/config_fields.h"
#include "nibble/config/fields.h"
#include "nibble/config/quantization_config.h"

namespace nibble {
namespace {

constexpr std::array<std::string_view, 7> kVersions = {"gemm",    "gemv", "gemv_fast", "llm-awq",
                                                       "exllama", "ipex", "marlin"};

// Of Transformers 4 and 5. All of them choose a kernel of another program, none changes the numbers
// in the file.
constexpr std::array<std::string_view, 15> kBackends = {
    "auto", "auto_trainable", "autoawq", "llm-awq",   "machete", "marlin",    "exllama_v1",     "exllama_v2",
    "gemm", "gemm_triton",    "gemv",    "gemv_fast", "torch",   "torch_awq", "torch_fused_awq"};

template <size_t n>
bool contains(const std::array<std::string_view, n>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Fused modules are a run-time option that Transformers has given up; a file that asks for them
// would not load there either.
void check_fusing(const Json& json, Faults& faults) {
  FieldReader reader(json, faults);
  bool do_fuse = false;
  reader.read({"do_fuse"}, do_fuse);
  if (do_fuse || has_field(json, {"modules_to_fuse"})) {
    faults.add("{} is set, but fused modules are no longer supported: remove it",
               do_fuse ? "do_fuse" : "modules_to_fuse");
  }
}

void check_pack_dtype(const Json& json, std::string_view version, Faults& faults) {
  const std::string_view expected = version == "llm-awq" || version == "gemv_fast" ? "int16" : "int32";
  std::string pack_dtype(expected);
  FieldReader(json, faults).read({"pack_dtype"}, pack_dtype);
  if (pack_dtype.starts_with("torch.")) pack_dtype.erase(0, 6);
  if (pack_dtype != expected && pack_dtype != "int32") {
    faults.add_unsupported(fmt::format("pack_dtype is \"{}\", but version \"{}\" is stored in {} words",
                                       pack_dtype, version, expected),
                           "Quantize the model again with the default pack_dtype.");
  }
}

void check_values(const AwqConfig& config, Faults& faults) {
  if (config.bits != 4) faults.add("bits is {}, but AWQ checkpoints have 4", config.bits);
  if (config.group_size != -1 && config.group_size <= 0) {
    faults.add("group_size is {}, but must be -1 (all inputs) or positive", config.group_size);
  }
  if (!contains(kVersions, config.version)) {
    faults.add("version is {}, but must be one of {}", shown(config.version), joined(kVersions));
  }
  if (!contains(kBackends, config.backend)) {
    faults.add("backend is {}, but must be one of {}", shown(config.backend), joined(kBackends));
  }
}

}  // namespace

Expected<AwqConfig> AwqConfig::from_json(const Json& source) {
  Faults faults;
  AwqConfig config;
  config.json = with_lower_case_keys(source, faults);
  const Json& json = config.json;
  FieldReader reader(json, faults);

  int64_t bits = config.bits;
  reader.read_integer(awq_fields::kBits, std::numeric_limits<int32_t>::min(),
                      std::numeric_limits<int32_t>::max(), "4", bits);
  config.bits = static_cast<int>(bits);
  reader.read_integer(awq_fields::kGroupSize, std::numeric_limits<int32_t>::min(),
                      std::numeric_limits<int32_t>::max(), "-1 (all inputs) or a positive integer",
                      config.group_size);
  bool sym = false;
  reader.read({"sym"}, sym);
  if (has_field(json, {"sym"})) config.zero_point = !sym;
  reader.read(awq_fields::kZeroPoint, config.zero_point);
  if (has_field(json, {"sym"}) && config.zero_point == sym) {
    faults.add("sym is {}, but zero_point is {}", sym, config.zero_point);
  }
  reader.read(awq_fields::kVersion, config.version);
  config.version = lower_case(config.version);
  reader.read(awq_fields::kBackend, config.backend);
  config.backend = lower_case(config.backend);
  // Transformers 4 called its two libraries backends; one of them had its own layout.
  if (config.backend == "llm-awq" && !has_field(json, awq_fields::kVersion)) config.version = "llm-awq";
  if (config.backend == "autoawq" || config.backend == "llm-awq") config.backend = "auto";
  reader.read_strings(awq_fields::kModulesToNotConvert, config.modules_to_not_convert);
  check_fusing(json, faults);
  check_pack_dtype(json, config.version, faults);
  check_exllama_config(json, faults);
  check_values(config, faults);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  return config;
}

Status AwqConfig::validate() const {
  Faults faults;
  check_values(*this, faults);
  if (const Status status = faults.status(); !status) {
    return Failure(status.error())
        .with_fix(
            "AWQ files have 4 bits and groups of 32, 64 or 128 as a rule; GPTQ files may have other bits.");
  }
  return {};
}

Json AwqConfig::to_json() const {
  Json out = json;
  write_field(out, kQuantMethod, "awq");
  write_field(out, awq_fields::kBits, bits);
  write_field(out, awq_fields::kGroupSize, group_size);
  if (out.contains("sym")) out["sym"] = !zero_point;
  write_field(out, awq_fields::kZeroPoint, zero_point);
  write_field(out, awq_fields::kVersion, version);
  if (backend != "auto" || (out.contains("backend") && !out["backend"].is_string())) out["backend"] = backend;
  const Json skipped = modules_to_not_convert.empty() ? Json(nullptr) : Json(modules_to_not_convert);
  if (!modules_to_not_convert.empty() || json.empty() || has_field(json, awq_fields::kModulesToNotConvert)) {
    out["modules_to_not_convert"] = skipped;
  }
  if (!meta.empty()) out["meta"].update(meta);
  return out;
}

}  // namespace nibble
