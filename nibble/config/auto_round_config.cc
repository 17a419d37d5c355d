// AutoRound's quantization_config: a wrapper, in which packing_format names the layout of GPTQ or AWQ that
// the tensors have (docs/formats/quantization_config.md).

#include <algorithm>
#include <array>
#include <limits>

#include "nibble/base/text.h"
#include "nibble/config/config_fields.h"
#include "nibble/config/dynamic_rules.h"
#include "nibble/config/fields.h"
#include "nibble/config/quantization_config.h"

namespace nibble {
namespace {

constexpr int64_t kNotQuantized = 16;  // from these bits on

struct Packing {
  std::string_view name;    // behind "auto_round:"
  std::string_view layout;  // checkpoint_format of GPTQ; "gemm" of AWQ
};

// The first four are what AutoRound writes today, "gptq" and "awq" what some files and Transformers call
// them. "exllamav2" and "tritonv2" are of 2024, when the key was `backend`: zero points are stored as they
// are.
constexpr std::array<Packing, 10> kPackings = {{
    {"auto_gptq", "gptq"},
    {"gptqmodel", "gptq_v2"},
    {"auto_awq", "gemm"},
    {"", "gptq_v2"},
    {"gptq", "gptq"},
    {"awq", "gemm"},
    {"exllamav2", "gptq_v2"},
    {"tritonv2", "gptq_v2"},
    {"triton", "gptq_v2"},
    {"auto", "gptq"},
}};
constexpr std::string_view kReadPackings = "auto_gptq, gptqmodel and auto_awq";
constexpr std::string_view kFix =
    "Export the model with AutoRound's format auto_gptq or auto_awq and weights of 2, 3, 4 or 8 bits, or "
    "take "
    "the unquantized model.";

// "auto_round:gptq:exllamav2" is "gptq": what follows names a kernel.
std::string_view packing_name(std::string_view text) {
  for (const std::string_view prefix : {"auto_round", "auto-round", "autoround"}) {
    if (!text.starts_with(prefix)) continue;
    text.remove_prefix(prefix.size());
    if (text.starts_with(':')) text.remove_prefix(1);
    break;
  }
  return text.substr(0, text.find(':'));
}

// Settings of the whole file or of one entry of extra_config.
struct Scheme {
  int64_t bits = 4;
  int64_t group_size = 128;
  bool sym = true;

  bool operator==(const Scheme&) const = default;
};

void read_scheme(const Json& json, Scheme& scheme, Faults& faults) {
  FieldReader reader(json, faults);
  std::string data_type = "int";
  int64_t act_bits = kNotQuantized;
  reader.read_integer({"bits"}, 1, 64, "an integer from 2 to 8, or 16 where nothing is quantized",
                      scheme.bits);
  reader.read_integer({"group_size"}, -1, std::numeric_limits<int32_t>::max(),
                      "-1 (all inputs) or a positive integer", scheme.group_size);
  reader.read({"sym"}, scheme.sym);
  reader.read({"data_type"}, data_type);
  reader.read_integer({"act_bits"}, 1, 64, "the bits of activations", act_bits);
  if (scheme.bits >= kNotQuantized) return;
  if (scheme.group_size == 0) faults.add("group_size is 0, but must be -1 (all inputs) or positive");
  if (!data_type.starts_with("int")) {
    faults.add_unsupported(fmt::format("data_type is {}, but only integers are read", shown(data_type)),
                           std::string(kFix));
  }
  if (act_bits < kNotQuantized) {
    faults.add_unsupported(fmt::format("act_bits is {}, but only float activations are read", act_bits),
                           std::string(kFix));
  }
}

// An entry of extra_config: a module's name, or a pattern that is looked for anywhere in names.
struct Override {
  std::string name;
  Scheme scheme;

  bool skips() const { return scheme.bits >= kNotQuantized; }
  bool is_pattern() const { return name.find_first_of("\\^$|()[]{}*+?") != std::string::npos; }
};

std::vector<Override> read_overrides(const Json& json, const Scheme& whole, Faults& faults) {
  std::vector<Override> overrides;
  FieldReader reader(json, faults);
  const Json* const entries = reader.find({"extra_config"});
  if (entries == nullptr) return overrides;
  if (!entries->is_object()) {
    faults.add("extra_config is {}, but must be an object from module names to settings", shown(*entries));
    return overrides;
  }
  for (const auto& [name, entry] : entries->items()) {
    if (!entry.is_object()) {
      faults.add("extra_config {} is {}, but must be an object", shown(name), shown(entry));
      continue;
    }
    Override found = {name, whole};
    Faults inner;
    read_scheme(entry, found.scheme, inner);
    if (const Status status = inner.status(); !status) {
      const Error& error = status.error();
      const std::string text = fmt::format("extra_config {}: {}", shown(name), error.what);
      if (error.code == ErrorCode::kUnsupported) {
        faults.add_unsupported(text, error.fix);
      } else {
        faults.add("{}", text);
      }
    }
    overrides.push_back(std::move(found));
  }
  return overrides;
}

GPTQConfig as_gptq(const Scheme& scheme, const std::vector<Override>& overrides, std::string_view format,
                   Faults& faults) {
  GPTQConfig config;
  config.bits = static_cast<int>(scheme.bits);
  config.group_size = scheme.group_size;
  config.sym = scheme.sym;
  config.has_sym = true;
  config.checkpoint_format = std::string(format);
  Json patterns = Json::object();
  for (const Override& found : overrides) {
    Json settings = Json::object();
    if (!found.skips()) {
      settings = {
          {"bits", found.scheme.bits}, {"group_size", found.scheme.group_size}, {"sym", found.scheme.sym}};
    }
    const std::string sign = found.skips() ? "-:" : "+:";
    if (found.is_pattern()) {
      patterns[sign + ".*(?:" + found.name + ")"] = settings;
      continue;
    }
    std::vector<DynamicRule> rules =
        read_dynamic({{sign + escape_pattern(found.name) + "$", settings}}, faults);
    config.module_rules[found.name] = std::move(rules.front());
  }
  config.dynamic = read_dynamic(patterns, faults);
  return config;
}

AwqConfig as_awq(const Scheme& scheme, const std::vector<Override>& overrides, Faults& faults) {
  AwqConfig config;
  config.bits = static_cast<int>(scheme.bits);
  config.group_size = scheme.group_size;
  config.zero_point = !scheme.sym;
  for (const Override& found : overrides) {
    // AutoRound writes the names of the modules that a pattern means beside it.
    if (found.skips() && !found.is_pattern()) config.modules_to_not_convert.push_back(found.name);
    if (found.skips() || found.scheme == scheme) continue;
    faults.add_unsupported(
        fmt::format("extra_config gives {} settings of its own, but AWQ has the same for all modules",
                    shown(found.name)),
        std::string(kFix));
  }
  return config;
}

}  // namespace

bool is_auto_round(std::string_view quant_method) {
  if (quant_method.starts_with("intel/")) quant_method.remove_prefix(6);
  return quant_method == "auto-round" || quant_method == "auto_round" || quant_method == "autoround";
}

Expected<QuantizationConfig> auto_round_config_from_json(const Json& source) {
  Faults faults;
  const Json json = with_lower_case_keys(source, faults);
  FieldReader reader(json, faults);
  std::string packing = "auto_round:auto_gptq";
  // `backend` was the layout before there was packing_format, and is a kernel since.
  const bool is_old = !has_field(json, {"packing_format"});
  std::string backend = packing;
  reader.read({"backend"}, backend);
  reader.read({"packing_format"}, packing);
  if (is_old) packing = backend;
  packing = lower_case(packing);

  Scheme scheme;
  read_scheme(json, scheme, faults);
  if (!has_field(json, {"bits"})) faults.add("bits is missing");
  const auto found = std::ranges::find(kPackings, packing_name(packing), &Packing::name);
  if (found == kPackings.end()) {
    faults.add_unsupported(fmt::format("{} is {}, but {} are read", is_old ? "backend" : "packing_format",
                                       shown(packing), kReadPackings),
                           std::string(kFix));
    return Failure(faults.status().error());
  }
  const std::vector<Override> overrides = read_overrides(json, scheme, faults);
  QuantizationConfig config;
  if (found->layout == "gemm") {
    config = as_awq(scheme, overrides, faults);
  } else {
    config = as_gptq(scheme, overrides, found->layout, faults);
  }
  NIBBLE_RETURN_IF_ERROR(faults.status());
  NIBBLE_RETURN_IF_ERROR(std::visit([](const auto& c) { return c.validate(); }, config));
  return config;
}

}  // namespace nibble
