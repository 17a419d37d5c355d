#include "nibble/config/quantization_config.h"

#include <algorithm>
#include <array>

#include "nibble/base/log.h"
#include "nibble/base/text.h"
#include "nibble/config/config_fields.h"
#include "nibble/config/fields.h"
#include "nibble/config/file_error.h"

namespace nibble {
namespace {

constexpr std::array<std::string_view, 5> kMethods = {"auto-round", "awq", "bitsandbytes",
                                                      "compressed-tensors", "gptq"};

// All fields that have other names, for the question where a value came from.
constexpr std::array kFieldsWithAliases = {
    gptq_fields::kBits,
    gptq_fields::kGroupSize,
    gptq_fields::kTrueSequential,
    gptq_fields::kStaticGroups,
    gptq_fields::kDampPercent,
    gptq_fields::kActGroupAware,
    gptq_fields::kFormat,
    awq_fields::kVersion,
    bnb_fields::kLoadIn8bit,
    bnb_fields::kLoadIn4bit,
    kQuantMethod,
};

bool is_true(const Json& json, std::string_view key) {
  const auto it = json.find(key);
  if (it == json.end()) return false;
  return it->is_boolean() ? it->get<bool>() : it->is_number() && it->get<double>() != 0.0;
}

// A quantize_config.json without quant_method is as old as AutoGPTQ's first releases; a
// quant_config.json is AutoAWQ's.
Json with_quant_method(Json json) {
  Faults ignored;
  const Json lower = with_lower_case_keys(json, ignored);
  if (lower.empty() || has_field(lower, kQuantMethod)) return json;
  const auto version = lower.find("version");
  const bool is_awq =
      has_field(lower, {"zero_point"}) || (version != lower.end() && version->is_string() &&
                                           lower_case(version->get<std::string>()).starts_with("gem"));
  json["quant_method"] = is_awq ? "awq" : "gptq";
  return json;
}

// What of a configuration decides how its tensors are read.
struct Layout {
  std::vector<std::pair<std::string_view, std::string>> values;

  explicit Layout(const QuantizationConfig& config) {
    values.emplace_back("quant_method", quant_method(config));
    if (const auto* gptq = std::get_if<GPTQConfig>(&config)) {
      add(gptq->bits, gptq->group_size, gptq->sym, gptq->checkpoint_format);
      values.emplace_back("desc_act", gptq->desc_act ? "true" : "false");
    } else if (const auto* awq = std::get_if<AwqConfig>(&config)) {
      add(awq->bits, awq->group_size, !awq->zero_point, awq->version);
    }
  }

  void add(int bits, int64_t group_size, bool sym, const std::string& format) {
    values.emplace_back("bits", std::to_string(bits));
    values.emplace_back("group_size", std::to_string(group_size));
    values.emplace_back("sym", sym ? "true" : "false");
    values.emplace_back("format", format);
  }
};

Status check_agreement(const QuantizationConfig& in_config, const QuantizationConfig& in_own_file) {
  const Layout a(in_config);
  const Layout b(in_own_file);
  Faults faults;
  for (size_t i = 0; i < std::min(a.values.size(), b.values.size()); ++i) {
    if (a.values[i].second == b.values[i].second) continue;
    faults.add("{} is {} in config.json, but {} in the quantize_config.json beside it", a.values[i].first,
               a.values[i].second, b.values[i].second);
    if (i == 0) break;  // of different methods nothing else can be compared
  }
  if (faults.empty()) return {};
  return fail(ErrorCode::kDataLoss, "{}", faults.status().error().what)
      .with_fix(
          "One of the two was edited or belongs to another model: mend it, or delete quantize_config.json "
          "to go by config.json.");
}

// As Transformers merges: of the caller's configuration only what chooses a kernel is taken.
Status merge_user(const QuantizationConfig& user, QuantizationConfig& config,
                  std::vector<ConfigOrigin>& origins) {
  if (user.index() != config.index()) {
    return fail(ErrorCode::kInvalidArgument,
                "the model is quantized with {}, but a configuration for {} was given", quant_method(config),
                quant_method(user))
        .with_fix("Leave the configuration out: the checkpoint has its own.");
  }
  const auto take_backend = [&](auto& into, const auto& from) {
    if (from.backend == "auto" || from.backend == into.backend) return;
    into.backend = from.backend;
    origins.push_back({"backend", from.backend, "flag"});
  };
  if (auto* gptq = std::get_if<GPTQConfig>(&config)) take_backend(*gptq, std::get<GPTQConfig>(user));
  if (auto* awq = std::get_if<AwqConfig>(&config)) take_backend(*awq, std::get<AwqConfig>(user));
  if (Layout(user).values != Layout(config).values || std::holds_alternative<BitsAndBytesConfig>(config)) {
    warn("the model is quantized already: its own {} configuration is used, not the one that was given",
         quant_method(config));
  }
  return {};
}

// Every value of `config`, with where it came from: `origin` if `json` has the field.
void add_origins(QuantizationConfig config, const Json& json, std::string_view origin,
                 std::vector<ConfigOrigin>& origins) {
  Faults ignored;
  const Json lower = with_lower_case_keys(json, ignored);
  const Json written = std::visit(
      [](auto& c) {
        c.json = Json::object();  // so that all fields are written, also those the file leaves out
        return c.to_json();
      },
      config);
  for (const auto& [key, value] : written.items()) {
    if (std::any_of(origins.begin(), origins.end(), [k = key](const auto& o) { return o.key == k; }))
      continue;
    Field field{key};
    for (const Field& known : kFieldsWithAliases) {
      if (known.key == key) field = known;
    }
    bool stated = has_field(lower, field);
    if (key == "sym") stated = stated || has_field(lower, {"zero_point"});
    if (key == "zero_point") stated = stated || has_field(lower, {"sym"});
    origins.push_back({key, shown(value), stated ? std::string(origin) : "default"});
  }
}

}  // namespace

void check_exllama_config(const Json& json, Faults& faults) {
  const auto it = json.find("exllama_config");
  if (it == json.end() || it->is_null()) return;
  const auto version = it->is_object() ? it->find("version") : it->end();
  if (!it->is_object() || version == it->end()) {
    faults.add("exllama_config is {}, but must be an object with \"version\"", shown(*it));
  } else if (*version != 1 && *version != 2) {
    faults.add("the version of exllama_config is {}, but must be 1 or 2", shown(*version));
  }
}

std::string_view quant_method(const QuantizationConfig& config) {
  constexpr std::array<std::string_view, 4> kNames = {"gptq", "awq", "bitsandbytes", "compressed-tensors"};
  return kNames[config.index()];
}

std::string quantization_name(const std::optional<QuantizationConfig>& config) {
  if (!config) return "none";
  if (const auto* bnb = std::get_if<BitsAndBytesConfig>(&*config)) {
    return fmt::format("bitsandbytes {}", bnb->load_in_8bit ? "int8" : bnb->bnb_4bit_quant_type);
  }
  return std::string(quant_method(*config));
}

Json to_json(const QuantizationConfig& config) {
  return std::visit([](const auto& c) { return c.to_json(); }, config);
}

Expected<QuantizationConfig> quantization_config_from_json(const Json& json) {
  Faults faults;
  const Json lower = with_lower_case_keys(json, faults);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  std::string method;
  FieldReader(lower, faults).read(kQuantMethod, method);
  if (is_true(lower, "load_in_8bit") || is_true(lower, "load_in_4bit")) method = "bitsandbytes";
  NIBBLE_RETURN_IF_ERROR(faults.status());
  method = lower_case(method);

  if (method == "gptq") return GPTQConfig::from_json(json);
  if (method == "awq") return AwqConfig::from_json(json);
  if (method == "bitsandbytes") return BitsAndBytesConfig::from_json(json);
  if (method == "compressed-tensors") return CompressedTensorsConfig::from_json(json);
  if (is_auto_round(method)) return auto_round_config_from_json(json);
  if (method.empty()) {
    return fail(ErrorCode::kInvalidArgument, "quant_method is missing; it must be one of {}",
                joined(kMethods));
  }
  if (method == "marlin") {
    return fail(ErrorCode::kUnsupported, "quant_method is \"marlin\", a layout made for one GPU kernel")
        .with_fix("Use the GPTQ checkpoint that it was made from.");
  }
  return fail(ErrorCode::kUnsupported, "quant_method is {}, but must be one of {}", shown(method),
              joined(kMethods))
      .with_fix("Use the unquantized model, or a checkpoint quantized with one of these.");
}

Expected<std::optional<Json>> read_quantize_config(const ModelFiles& files) {
  for (const char* const name : kQuantizeConfigFiles) {
    NIBBLE_TRY(const std::optional<std::string> text, files.read(name));
    if (!text) continue;
    NIBBLE_TRY(Json json, at_file(name, parse_json(*text)));
    return std::optional<Json>(std::move(json));
  }
  return std::optional<Json>();
}

Expected<ResolvedQuantization> resolve_quantization(const Json& config_json,
                                                    const std::optional<Json>& quantize_config,
                                                    const std::optional<QuantizationConfig>& user) {
  constexpr std::string_view kConfigFile = "config.json";
  constexpr std::string_view kOwnFile = "quantize_config.json";
  ResolvedQuantization resolved;
  const auto in_config =
      config_json.is_object() ? config_json.find("quantization_config") : config_json.end();
  const bool has_in_config =
      config_json.is_object() && in_config != config_json.end() && !in_config->is_null();

  std::optional<QuantizationConfig> own;
  if (quantize_config && !quantize_config->is_null()) {
    NIBBLE_TRY(own, at_file(kOwnFile, quantization_config_from_json(with_quant_method(*quantize_config))));
  }
  if (has_in_config) {
    NIBBLE_TRY(resolved.config,
               at_file("config.json: quantization_config", quantization_config_from_json(*in_config)));
    if (own) NIBBLE_RETURN_IF_ERROR(check_agreement(*resolved.config, *own));
  } else {
    resolved.config = own;
  }

  if (!resolved.config) {
    resolved.config = user;
    if (user) {
      const auto status = std::visit([](const auto& c) { return c.validate(); }, *user);
      NIBBLE_RETURN_IF_ERROR(at("quantization_config", status));
      add_origins(*user, to_json(*user), "flag", resolved.origins);
    }
    return resolved;
  }
  resolved.pre_quantized = true;
  if (user) NIBBLE_RETURN_IF_ERROR(merge_user(*user, *resolved.config, resolved.origins));
  if (const auto* gptq = std::get_if<GPTQConfig>(&*resolved.config); gptq != nullptr && !gptq->has_sym) {
    warn("quantization_config does not say sym, as files of 2023 do not: taken as true");
  }
  const Json& source = has_in_config ? *in_config : *quantize_config;
  if (const auto method = source.find("quant_method");
      method != source.end() && method->is_string() &&
      is_auto_round(lower_case(method->get<std::string>()))) {
    resolved.origins.push_back(
        {"quant_method", shown(*method), std::string(has_in_config ? kConfigFile : kOwnFile)});
  }
  add_origins(*resolved.config, source, has_in_config ? kConfigFile : kOwnFile, resolved.origins);
  return resolved;
}

}  // namespace nibble
