// What config.json says of a converted model, for all its readers.

#include <algorithm>
#include <set>
#include <tuple>

#include "nibble/config/dynamic_rules.h"
#include "nibble/pipeline/convert_plan.h"
#include "nibble/pipeline/jobs.h"

namespace nibble {
namespace {

bool is_stored(const ModulePlan& module) { return module.stored_as != StoredAs::kFloat; }

// Linear layers that the result has in floating point; with the head.
std::set<std::string> left_alone(const ModelSource& source, const ConversionPlan& plan) {
  std::set<std::string> names = linear_modules(source.slots);
  for (const ModuleSlot& slot : source.slots) {
    if (slot.role == ModuleRole::kHead) names.insert(slot.name);
  }
  for (const auto& [name, module] : plan.modules) {
    if (is_stored(module)) names.erase(name);
  }
  return names;
}

// "model.layers.3.self_attn.k_proj" -> "self_attn.k_proj"; the whole name where it is in no block.
std::string name_in_block(const std::string& name) {
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const bool number = end > begin && std::all_of(name.begin() + static_cast<ptrdiff_t>(begin),
                                                   name.begin() + static_cast<ptrdiff_t>(end),
                                                   [](char c) { return c >= '0' && c <= '9'; });
    if (number && end < name.size()) return name.substr(end + 1);
    begin = end + 1;
  }
  return name;
}

// The shortest words that say which linear layers are left alone: what all blocks leave alone by its name
// within a block, the rest by full names.
std::vector<std::string> skip_words(const ModelSource& source, const std::set<std::string>& alone) {
  const std::set<std::string> linears = linear_modules(source.slots);
  std::set<std::string> words;
  for (const std::string& name : alone) {
    if (!linears.contains(name)) continue;
    const std::string word = name_in_block(name);
    const bool everywhere = std::all_of(linears.begin(), linears.end(), [&](const std::string& other) {
      return other.find(word) == std::string::npos || alone.contains(other);
    });
    words.insert(everywhere ? word : name);
  }
  return {words.begin(), words.end()};
}

using BitsAndGroup = std::tuple<int, int64_t>;  // bits, group_size

BitsAndGroup most_common_grid(const ConversionPlan& plan) {
  std::map<BitsAndGroup, size_t> counts;
  for (const auto& [name, module] : plan.modules) {
    if (is_stored(module)) counts[{module.bits, module.group_size}] += module.facts.is_head ? 1 : 2;
  }
  return std::max_element(counts.begin(), counts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

// For those who look where a file comes from.
Json provenance(const ConversionPlan& plan) {
  return {{"converted_by", "nibble:" NIBBLE_VERSION}, {"converted_from", plan.from}};
}

QuantizationConfig gptq_config(const ModelSource& source, const ConversionPlan& plan) {
  GPTQConfig config;
  config.checkpoint_format = plan.layout.name();
  config.has_sym = true;
  config.act_group_aware = false;
  config.quantizer = {"nibble:" NIBBLE_VERSION};
  config.meta = provenance(plan);
  std::tie(config.bits, config.group_size) = most_common_grid(plan);
  std::set<std::string> quantized;
  for (const auto& [name, module] : plan.modules) {
    if (!is_stored(module)) continue;
    quantized.insert(name);
    config.sym = config.sym && module.sym;
    config.desc_act = config.desc_act || module.ordered;
    config.lm_head = config.lm_head || module.facts.is_head;
    if (BitsAndGroup{module.bits, module.group_size} == BitsAndGroup{config.bits, config.group_size})
      continue;
    config.dynamic.push_back({.pattern = escape_pattern(name) + "$",
                              .overrides = {{"bits", module.bits}, {"group_size", module.group_size}}});
  }
  std::vector<DynamicRule> skips;
  for (const std::string& word : skip_words(source, left_alone(source, plan))) {
    skips.push_back({.pattern = ".*" + escape_pattern(word) + "$", .skip = true});
  }
  config.dynamic.insert(config.dynamic.begin(), skips.begin(), skips.end());
  QuantizationConfig result = std::move(config);
  list_quantized_modules(source, quantized, result);
  return result;
}

QuantizationConfig awq_config(const ModelSource& source, const ConversionPlan& plan) {
  AwqConfig config;
  config.version = plan.layout.name();
  config.group_size = std::get<int64_t>(most_common_grid(plan));
  config.modules_to_not_convert = skip_words(source, left_alone(source, plan));
  config.meta = provenance(plan);
  QuantizationConfig result = std::move(config);
  if (!std::get<AwqConfig>(result).modules_to_not_convert.empty()) complete_skip_list(source, result);
  return result;
}

QuantizationConfig compressed_tensors_config(const ModelSource& source, const ConversionPlan& plan) {
  std::map<std::tuple<int, int64_t, bool>, CompressedTensorsGroup> groups;
  for (const auto& [name, module] : plan.modules) {
    if (!is_stored(module)) continue;
    CompressedTensorsGroup wanted = group_of(module);
    wanted.targets.clear();
    CompressedTensorsGroup& group =
        groups.try_emplace({module.bits, module.group_size, module.ordered}, wanted).first->second;
    group.targets.push_back(name);
    group.sym = group.sym && module.sym;
  }
  CompressedTensorsConfig config;
  for (auto& [key, group] : groups) {
    group.name = fmt::format("group_{}", config.groups.size());
    config.groups.push_back(std::move(group));
  }
  if (config.groups.size() == 1) config.groups.front().targets = {"Linear"};
  std::set<std::string> ignore = left_alone(source, plan);
  for (const ModuleSlot& slot : source.slots) {
    if (slot.role == ModuleRole::kRouter) ignore.insert(slot.name);
  }
  // A head that shares the embedding's weight is a module of the model all the same.
  const auto is_head = [](const ModuleSlot& slot) { return slot.role == ModuleRole::kHead; };
  if (std::none_of(source.slots.begin(), source.slots.end(), is_head)) ignore.insert("lm_head");
  config.ignore.assign(ignore.begin(), ignore.end());
  return config;
}

}  // namespace

Expected<QuantizationConfig> converted_config(const ModelSource& source, const ConversionPlan& plan) {
  const bool exact = plan.count(StoredAs::kExact) == plan.modules.size();
  const bool any = plan.count(StoredAs::kFloat) < plan.modules.size();
  if (!any) {
    return fail(ErrorCode::kUnsupported, "no layer of the model goes into {}, even with other codes: {}",
                plan.layout.name(), plan.modules.begin()->second.why)
        .at(source.files.name)
        .with_fix("Convert it to float, or to another layout.");
  }
  // What the file says beside the layout stays where it stays true.
  if (const auto* const gptq = std::get_if<GPTQConfig>(&*source.quantization);
      gptq != nullptr && plan.layout.is_gptq() && exact) {
    GPTQConfig config = *gptq;
    config.checkpoint_format = plan.layout.name();
    config.meta = provenance(plan);
    return config;
  }
  if (const auto* const awq = std::get_if<AwqConfig>(&*source.quantization);
      awq != nullptr && plan.layout.is_awq() && exact) {
    AwqConfig config = *awq;
    config.version = plan.layout.name();
    config.zero_point = true;  // also where all of them are the same: every reader takes them then
    config.backend = "auto";
    config.json.erase("backend");  // a kernel for the old layout
    config.meta = provenance(plan);
    return config;
  }
  if (plan.layout.is_gptq()) return gptq_config(source, plan);
  if (plan.layout.is_awq()) return awq_config(source, plan);
  return compressed_tensors_config(source, plan);
}

}  // namespace nibble
