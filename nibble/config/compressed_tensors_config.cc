// CompressedTensorsConfig: the keys that llm-compressor writes and Transformers and vLLM read
// (docs/formats/compressed-tensors.md).

#include <algorithm>
#include <array>
#include <limits>

#include "nibble/base/log.h"
#include "nibble/base/text.h"
#include "nibble/config/config_fields.h"
#include "nibble/config/dynamic_rules.h"
#include "nibble/config/fields.h"
#include "nibble/config/quantization_config.h"

namespace nibble {
namespace {

constexpr std::string_view kFormat = "pack-quantized";
constexpr std::string_view kOtherFormats =
    "Only the layout pack-quantized (integer weights, float activations) is read: take such a checkpoint, or "
    "the unquantized model.";
constexpr std::string_view kRegex = "re:";

bool is_set(const Json& object, std::string_view key) {
  const auto found = object.find(key);
  return found != object.end() && !found->is_null();
}

// "group_size 32", or the strategy that means as much.
void read_group_size(const Json& weights, CompressedTensorsGroup& group, Faults& faults) {
  FieldReader reader(weights, faults);
  std::string strategy;
  int64_t group_size = -1;
  reader.read({"strategy"}, strategy);
  reader.read_integer({"group_size"}, -1, std::numeric_limits<int32_t>::max(),
                      "-1 (all inputs) or a positive integer", group_size);
  if (strategy.empty()) strategy = group_size > 0 ? "group" : "channel";
  if (strategy == "channel") {
    group.group_size = -1;
  } else if (strategy == "group" && group_size > 0) {
    group.group_size = group_size;
  } else if (strategy == "group") {
    faults.add("strategy is \"group\", but group_size is {}", group_size);
  } else {
    faults.add_unsupported(
        fmt::format("strategy is {}, but \"group\" and \"channel\" are read", shown(strategy)),
        std::string(kOtherFormats));
  }
}

void read_actorder(const Json& weights, CompressedTensorsGroup& group, Faults& faults) {
  const auto found = weights.find("actorder");
  if (found == weights.end() || found->is_null()) return;
  if (found->is_boolean()) {  // true meant "group" once
    if (found->get<bool>()) group.actorder = "group";
    return;
  }
  FieldReader(weights, faults).read({"actorder"}, group.actorder);
  group.actorder = lower_case(group.actorder);
  if (group.actorder == "dynamic") group.actorder = "group";
  constexpr std::array<std::string_view, 4> kOrders = {"", "group", "weight", "static"};
  if (std::find(kOrders.begin(), kOrders.end(), group.actorder) == kOrders.end()) {
    faults.add("actorder is {}, but must be group, weight or static", shown(group.actorder));
  }
}

void read_weights(const Json& weights, CompressedTensorsGroup& group, Faults& faults) {
  FieldReader reader(weights, faults);
  std::string type = "int";
  int64_t bits = 8;
  reader.read({"type"}, type);
  reader.read_integer({"num_bits"}, 1, 64, "an integer", bits);
  reader.read({"symmetric"}, group.sym);
  group.bits = static_cast<int>(bits);
  if (lower_case(type) != "int") {
    faults.add_unsupported(fmt::format("the weights are of type {}, but int is read", shown(type)),
                           std::string(kOtherFormats));
  }
  read_group_size(weights, group, faults);
  read_actorder(weights, group, faults);
}

CompressedTensorsGroup read_group(const std::string& name, const Json& json, Faults& all) {
  CompressedTensorsGroup group{.name = name};
  if (!json.is_object()) {
    all.add("config_groups {} is {}, but must be an object", shown(name), json_type_name(json));
    return group;
  }
  Faults faults;
  FieldReader reader(json, faults);
  group.targets.clear();
  reader.read_strings({"targets"}, group.targets);
  std::string format(kFormat);
  reader.read({"format"}, format);
  if (format != kFormat) {
    faults.add_unsupported(fmt::format("the format is {}", shown(format)), std::string(kOtherFormats));
  }
  for (const std::string_view key : {"input_activations", "output_activations"}) {
    if (!is_set(json, key)) continue;
    faults.add_unsupported(fmt::format("{} are quantized, too", key), std::string(kOtherFormats));
  }
  const auto weights = json.find("weights");
  if (weights == json.end() || !weights->is_object()) {
    faults.add("weights is missing");
  } else {
    read_weights(*weights, group, faults);
  }
  const Status status = faults.status();
  if (status) return group;
  const std::string what = fmt::format("config_groups {}: {}", shown(name), status.error().what);
  if (status.error().code == ErrorCode::kUnsupported) {
    all.add_unsupported(what, status.error().fix);
  } else {
    all.add("{}", what);
  }
  return group;
}

void check_values(const CompressedTensorsConfig& config, Faults& faults) {
  if (config.groups.empty()) faults.add("config_groups is empty");
  for (const CompressedTensorsGroup& group : config.groups) {
    if (group.bits != 2 && group.bits != 4 && group.bits != 8) {
      faults.add_unsupported(fmt::format("config_groups {}: num_bits is {}, but 2, 4 and 8 are read",
                                         shown(group.name), group.bits),
                             "Releases of compressed-tensors differ in how they lay out other widths.");
    }
    if (group.group_size != -1 && group.group_size <= 0) {
      faults.add("config_groups {}: group_size is {}, but must be -1 (all inputs) or positive",
                 shown(group.name), group.group_size);
    }
  }
}

Json group_json(const CompressedTensorsGroup& group) {
  const bool channel = group.group_size == -1;
  Json weights = {{"num_bits", group.bits},
                  {"type", "int"},
                  {"symmetric", group.sym},
                  {"strategy", channel ? "channel" : "group"},
                  {"group_size", channel ? Json(nullptr) : Json(group.group_size)},
                  {"dynamic", false}};
  if (!group.actorder.empty()) weights["actorder"] = group.actorder;
  return {{"targets", group.targets},
          {"weights", weights},
          {"input_activations", nullptr},
          {"output_activations", nullptr}};
}

Expected<bool> matches_target(const std::string& target, std::string_view module) {
  if (!target.starts_with(kRegex)) return target == module || target == "Linear";
  return matches_pattern(target.substr(kRegex.size()), module, "config_groups");
}

}  // namespace

Expected<CompressedTensorsConfig> CompressedTensorsConfig::from_json(const Json& source) {
  Faults faults;
  CompressedTensorsConfig config;
  config.json = with_lower_case_keys(source, faults);
  const Json& json = config.json;
  FieldReader reader(json, faults);
  std::string format(kFormat);
  reader.read({"format"}, format);
  if (format != kFormat && format != "mixed-precision") {  // the latter: each group has its own
    faults.add_unsupported(fmt::format("the format of compressed-tensors is {}", shown(format)),
                           std::string(kOtherFormats));
  }
  if (const Json* const sparsity = reader.find({"sparsity_config"}); sparsity != nullptr) {
    std::string sparse = "dense";
    if (sparsity->is_object()) FieldReader(*sparsity, faults).read({"format"}, sparse);
    if (sparse != "dense") {
      faults.add_unsupported(fmt::format("the weights are sparse as well ({})", shown(sparse)),
                             std::string(kOtherFormats));
    }
  }
  if (const Json* const transform = reader.find({"transform_config"});
      transform != nullptr && !transform->empty()) {
    faults.add_unsupported("the weights are rotated (transform_config)", std::string(kOtherFormats));
  }
  reader.read_strings({"ignore"}, config.ignore);
  const Json* const groups = reader.find({"config_groups"});
  if (groups != nullptr && groups->is_object()) {
    for (const auto& [name, group] : groups->items())
      config.groups.push_back(read_group(name, group, faults));
  } else {
    faults.add("config_groups is missing");
  }
  if (faults.empty()) check_values(config, faults);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  if (reader.find({"kv_cache_scheme"}) != nullptr) {
    warn("kv_cache_scheme of quantization_config is not followed: the KV cache stays in floating point");
  }
  return config;
}

Json CompressedTensorsConfig::to_json() const {
  if (!json.empty()) return json;
  Json all = Json::object();
  for (const CompressedTensorsGroup& group : groups) all[group.name] = group_json(group);
  return {{"config_groups", all},
          {"quant_method", "compressed-tensors"},
          {"format", kFormat},
          {"quantization_status", "compressed"},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr},
          {"ignore", ignore}};
}

Status CompressedTensorsConfig::validate() const {
  Faults faults;
  check_values(*this, faults);
  return faults.status();
}

Expected<const CompressedTensorsGroup*> find_group(const CompressedTensorsConfig& config,
                                                   std::string_view module) {
  if (config.groups.size() == 1) return &config.groups.front();
  // Names before classes: vLLM and compressed-tensors look in this order.
  for (const bool classes : {false, true}) {
    for (const CompressedTensorsGroup& group : config.groups) {
      for (const std::string& target : group.targets) {
        if ((target == "Linear") != classes) continue;
        NIBBLE_TRY(const bool found, matches_target(target, module));
        if (found) return &group;
      }
    }
  }
  return fail(ErrorCode::kDataLoss, "no target of config_groups matches the module").at(module);
}

}  // namespace nibble
