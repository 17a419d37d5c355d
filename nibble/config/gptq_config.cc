// GPTQConfig: the keys of Transformers, AutoGPTQ, GPTQModel and GPTQ-for-LLaMa.

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

constexpr std::array<std::string_view, 3> kFormats = {"gptq", "gptq_v2", "gptq_p"};
constexpr std::array<std::string_view, 3> kDatasets = {"wikitext2", "c4", "c4-new"};

void read_format(const Json& json, Faults& faults, std::string& format) {
  FieldReader reader(json, faults);
  reader.read(gptq_fields::kFormat, format);
  bool is_marlin = false;
  reader.read({"is_marlin_format"}, is_marlin);
  format = is_marlin ? "marlin" : lower_case(format);
}

// zero_point says the opposite of sym.
void read_sym(const Json& json, Faults& faults, GPTQConfig& config) {
  FieldReader reader(json, faults);
  bool zero_point = false;
  reader.read({"zero_point"}, zero_point);
  const bool has_zero_point = has_field(json, {"zero_point"});
  const bool has_sym = has_field(json, gptq_fields::kSym);
  if (has_zero_point) config.sym = !zero_point;
  reader.read(gptq_fields::kSym, config.sym);
  if (has_zero_point && has_sym && config.sym == zero_point) {
    faults.add("sym is {}, but zero_point is {}", config.sym, zero_point);
  }
  config.has_sym = has_zero_point || has_sym;
}

// What only matters while quantizing or on a GPU, but is checked as Transformers checks it.
void check_other_fields(const Json& json, Faults& faults) {
  FieldReader reader(json, faults);
  if (const Json* dataset = reader.find({"dataset"})) {
    if (dataset->is_string()) {
      const auto name = dataset->get<std::string>();
      if (std::find(kDatasets.begin(), kDatasets.end(), name) == kDatasets.end()) {
        faults.add("dataset is {}, but must be one of {}, or a list of texts", shown(*dataset),
                   joined(kDatasets));
      }
    } else {
      std::vector<std::string> texts;
      reader.read_strings({"dataset"}, texts);
    }
  }
  int64_t batch_size = 1;
  reader.read_integer({"batch_size"}, 1, std::numeric_limits<int32_t>::max(), "a positive integer",
                      batch_size);
  if (batch_size > 1 && !has_field(json, {"pad_token_id"})) {
    faults.add("batch_size is {}, which needs a pad_token_id", batch_size);
  }
  check_exllama_config(json, faults);
  std::string pack_dtype = "int32";
  reader.read({"pack_dtype"}, pack_dtype);
  if (pack_dtype.starts_with("torch.")) pack_dtype.erase(0, 6);
  if (pack_dtype != "int32") {
    faults.add_unsupported(
        fmt::format("pack_dtype is \"{}\", but only int32 words are read", pack_dtype),
        "Quantize the model again with pack_dtype \"int32\", which is GPTQModel's default.");
  }
}

std::vector<std::string> read_quantizer(const Json& json, Faults& faults) {
  std::vector<std::string> quantizer;
  const auto meta = json.find("meta");
  if (meta == json.end() || meta->is_null()) return quantizer;
  if (!meta->is_object()) {
    faults.add("meta is {}, but must be an object", shown(*meta));
    return quantizer;
  }
  const auto value = meta->find("quantizer");
  if (value == meta->end() || value->is_null()) return quantizer;
  if (value->is_string()) return {value->get<std::string>()};
  FieldReader(*meta, faults).read_strings({"quantizer"}, quantizer);
  return quantizer;
}

// Faults of the values themselves; `faults` may hold some of reading already.
void check_values(const GPTQConfig& config, Faults& faults) {
  if (config.bits < 2 || config.bits > 8) {
    faults.add("bits is {}, but must be an integer from 2 to 8", config.bits);
  }
  if (config.group_size != -1 && config.group_size <= 0) {
    faults.add("group_size is {}, but must be -1 (all inputs) or positive", config.group_size);
  }
  if (!(config.damp_percent > 0.0 && config.damp_percent < 1.0)) {
    faults.add("damp_percent is {}, but must lie between 0 and 1", config.damp_percent);
  }
  const std::string& format = config.checkpoint_format;
  if (format == "marlin" || format == "bitblas") {
    faults.add_unsupported(
        fmt::format("checkpoint_format is \"{}\", a layout made for one GPU kernel", format),
        "Use the original GPTQ checkpoint (checkpoint_format \"gptq\"), or quantize the model again.");
  } else if (std::find(kFormats.begin(), kFormats.end(), format) == kFormats.end()) {
    faults.add("checkpoint_format is \"{}\", but must be one of {}", format, joined(kFormats));
  } else if (config.bits >= 5 && config.bits <= 7 && format != "gptq_p") {
    faults.add("bits is {}, which only checkpoint_format \"gptq_p\" can hold, but it is \"{}\"", config.bits,
               format);
  }
}

}  // namespace

Expected<GPTQConfig> GPTQConfig::from_json(const Json& source) {
  Faults faults;
  GPTQConfig config;
  config.json = with_lower_case_keys(source, faults);
  const Json& json = config.json;
  FieldReader reader(json, faults);

  int64_t bits = config.bits;
  reader.read_integer(gptq_fields::kBits, 2, 8, "an integer from 2 to 8", bits);
  config.bits = static_cast<int>(bits);
  if (!has_field(json, gptq_fields::kBits)) faults.add("bits is missing");
  reader.read_integer(gptq_fields::kGroupSize, std::numeric_limits<int32_t>::min(),
                      std::numeric_limits<int32_t>::max(), "-1 (all inputs) or a positive integer",
                      config.group_size);
  reader.read(gptq_fields::kDescAct, config.desc_act);
  read_sym(json, faults, config);
  reader.read(gptq_fields::kTrueSequential, config.true_sequential);
  reader.read(gptq_fields::kStaticGroups, config.static_groups);
  reader.read(gptq_fields::kDampPercent, config.damp_percent);
  reader.read(gptq_fields::kActGroupAware, config.act_group_aware);
  if (config.desc_act && config.act_group_aware && has_field(json, gptq_fields::kActGroupAware)) {
    faults.add("desc_act and act_group_aware are both true, but only one can be");
  }
  if (config.desc_act) config.act_group_aware = false;
  reader.read(gptq_fields::kLmHead, config.lm_head);
  read_format(json, faults, config.checkpoint_format);
  reader.read(gptq_fields::kBackend, config.backend);
  reader.read_strings(gptq_fields::kModulesInBlock, config.modules_in_block_to_quantize);
  if (const Json* dynamic = reader.find(gptq_fields::kDynamic))
    config.dynamic = read_dynamic(*dynamic, faults);
  config.quantizer = read_quantizer(json, faults);
  check_other_fields(json, faults);
  check_values(config, faults);
  NIBBLE_RETURN_IF_ERROR(faults.status());
  return config;
}

Status GPTQConfig::validate() const {
  Faults faults;
  check_values(*this, faults);
  Json rules = Json::object();
  for (const DynamicRule& rule : dynamic) rules[(rule.skip ? "-:" : "+:") + rule.pattern] = rule.overrides;
  read_dynamic(rules, faults);
  if (const Status status = faults.status(); !status) {
    return Failure(status.error())
        .with_fix(
            "bits are 2, 3, 4 or 8, and in gptq_p also 5, 6 or 7; usual are 4 bits, group_size 128 and "
            "damp_percent 0.01.");
  }
  return {};
}

namespace {

// The keys and their order are GPTQModel's. "format" beside "checkpoint_format": GPTQModel 5 and newer
// prefer the former, Transformers and vLLM know the latter.
Json new_gptq_json(const GPTQConfig& config) {
  Json out;
  out["bits"] = config.bits;
  out["group_size"] = config.group_size;
  out["desc_act"] = config.desc_act;
  out["lm_head"] = config.lm_head;
  out["quant_method"] = "gptq";
  out["format"] = config.checkpoint_format;
  out["checkpoint_format"] = config.checkpoint_format;
  out["pack_dtype"] = "int32";
  out["meta"] = {{"damp_percent", config.damp_percent},
                 {"static_groups", config.static_groups},
                 {"true_sequential", config.true_sequential},
                 {"act_group_aware", config.act_group_aware && !config.desc_act}};
  out["sym"] = config.sym;
  return out;
}

}  // namespace

Json GPTQConfig::to_json() const {
  const GPTQConfig defaults;
  Json out = json.empty() ? new_gptq_json(*this) : json;
  const auto write = [&](const Field& field, const Json& value, bool is_default) {
    write_field(out, field, value, is_default);
  };
  write_field(out, kQuantMethod, "gptq");
  write_field(out, gptq_fields::kBits, bits);
  write_field(out, gptq_fields::kGroupSize, group_size);
  write_field(out, gptq_fields::kDescAct, desc_act);
  if (out.contains("zero_point")) out["zero_point"] = !sym;
  write_field(out, gptq_fields::kSym, sym);
  write(gptq_fields::kTrueSequential, true_sequential, true_sequential == defaults.true_sequential);
  write(gptq_fields::kStaticGroups, static_groups, static_groups == defaults.static_groups);
  write(gptq_fields::kDampPercent, damp_percent, damp_percent == defaults.damp_percent);
  write(gptq_fields::kActGroupAware, act_group_aware && !desc_act, act_group_aware != desc_act);
  write_field(out, gptq_fields::kFormat, checkpoint_format);
  write(gptq_fields::kLmHead, lm_head, !lm_head);
  if (backend != defaults.backend || out.contains("backend")) out["backend"] = backend;
  std::vector<DynamicRule> rules;  // module_rules first
  for (const auto& [module, rule] : module_rules) rules.push_back(rule);
  rules.insert(rules.end(), dynamic.begin(), dynamic.end());
  std::stable_partition(rules.begin(), rules.end(), [](const DynamicRule& rule) { return rule.skip; });
  if (!rules.empty()) {
    // The file's own object where it says the same, so that its order and spelling stay.
    Faults ignored;
    const auto kept = out.find("dynamic");
    if (kept == out.end() || read_dynamic(*kept, ignored) != rules) out["dynamic"] = write_dynamic(rules);
  } else {
    out.erase("dynamic");
  }
  if (!modules_in_block_to_quantize.empty() && !out.contains("modules_in_block_to_quantize")) {
    out["modules_in_block_to_quantize"] = Json::array({modules_in_block_to_quantize});  // one list of lists
  }
  if (!quantizer.empty()) out["meta"]["quantizer"] = quantizer;
  if (!meta.empty()) out["meta"].update(meta);
  return out;
}

}  // namespace nibble
