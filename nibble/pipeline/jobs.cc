#include "nibble/pipeline/jobs.h"

#include <algorithm>
#include <set>
#include <vector>

#include "nibble/config/dynamic_rules.h"
#include "nibble/quantization/formats/gptq.h"

namespace nibble {
namespace {

// What GPTQModel makes of a head that is to be quantized, unless a rule of `dynamic` says otherwise.
constexpr int kHeadBits = 8;
constexpr int64_t kHeadGroupSize = 32;

size_t settings_group_size(int64_t group_size) {
  return group_size < 0 ? 0 : static_cast<size_t>(group_size);
}

Status gptq_job(const QuantizeOptions& options, const GPTQConfig& config, ModuleJob& job) {
  NIBBLE_TRY(const GptqParameters parameters, gptq_parameters(config, job.module));
  NIBBLE_TRY(job.layout, affine_layout_from_name(config.checkpoint_format));
  GptqSettings& settings = job.settings;
  settings.bits = parameters.bits;
  settings.group_size = settings_group_size(parameters.group_size);
  settings.sym = parameters.sym;
  settings.desc_act = parameters.desc_act;
  settings.static_groups = parameters.static_groups;
  settings.act_group_aware = config.act_group_aware && settings.group_size > 0 && !settings.desc_act;
  settings.damp_percent = config.damp_percent;
  settings.mse = options.mse;
  settings.signed_scales = options.signed_scales && settings.sym;
  settings.zero_may_be_0 = job.layout != AffineLayout::kGptq;
  return {};
}

Status awq_job(const QuantizeOptions& options, const AwqConfig& config, ModuleJob& job) {
  NIBBLE_TRY(job.layout, affine_layout_from_name(config.version));
  job.settings.bits = config.bits;
  job.settings.group_size = settings_group_size(config.group_size);
  job.settings.sym = !config.zero_point;
  job.settings.act_group_aware = false;
  job.settings.mse = options.mse;
  return {};
}

// The list of names that a method leaves alone; GPTQ has rules instead.
std::vector<std::string>* skip_list(QuantizationConfig& config) {
  if (auto* const awq = std::get_if<AwqConfig>(&config)) return &awq->modules_to_not_convert;
  auto* const bnb = std::get_if<BitsAndBytesConfig>(&config);
  return bnb != nullptr && bnb->llm_int8_skip_modules ? &*bnb->llm_int8_skip_modules : nullptr;
}

bool contains_any(const std::string& module, const std::vector<std::string>& words) {
  return std::any_of(words.begin(), words.end(),
                     [&](const std::string& word) { return module.find(word) != std::string::npos; });
}

Expected<bool> is_skipped(QuantizationConfig& config, const std::string& module) {
  if (const auto* const gptq = std::get_if<GPTQConfig>(&config)) {
    NIBBLE_TRY(const DynamicRule* const rule, find_dynamic_rule(*gptq, module));
    return rule != nullptr && rule->skip;
  }
  const std::vector<std::string>* const words = skip_list(config);
  return words != nullptr && contains_any(module, *words);
}

// Words that name the routers, and the gates of shared experts, and no linear: AutoAWQ and Transformers leave
// out what holds one of them anywhere in its name, and "gate" would be in "gate_proj". The last part of a
// name where that is enough, or its name inside the block, or (where a dense block has "mlp.gate_proj") the
// names of all.
std::vector<std::string> router_words(const ModelSource& source) {
  const std::set<std::string> linears = linear_modules(source.slots);
  const auto in_a_linear = [&](const std::string& word) {
    return std::any_of(linears.begin(), linears.end(),
                       [&](const std::string& module) { return module.find(word) != std::string::npos; });
  };
  std::vector<std::string> words;
  for (const std::string_view role : {source.spec.names.block.router, source.spec.names.block.shared_gate}) {
    if (role.empty()) continue;
    const std::string in_block(role);
    const std::string last = in_block.substr(in_block.rfind('.') + 1);
    if (!in_a_linear(last)) {
      words.push_back(last);
    } else if (!in_a_linear(in_block)) {
      words.push_back(in_block);
    } else {
      for (const ModuleSlot& slot : source.slots) {
        if (slot.role == ModuleRole::kRouter && slot.name.ends_with("." + in_block))
          words.push_back(slot.name);
      }
    }
  }
  return words;
}

// GPTQModel knows no list of AWQ modules, only rules, and would read such a module as codes.
void add_skip_rules(const std::vector<std::string>& words, AwqConfig& config) {
  for (const std::string& word : words)
    config.json["dynamic"]["-:.*" + escape_pattern(word)] = Json::object();
}

}  // namespace

void complete_skip_list(const ModelSource& source, QuantizationConfig& config) {
  std::vector<std::string> complete = router_words(source);  // readers would take them for linear layers
  auto* const bnb = std::get_if<BitsAndBytesConfig>(&config);
  if (bnb != nullptr && !complete.empty() && !bnb->llm_int8_skip_modules)
    bnb->llm_int8_skip_modules.emplace();
  std::vector<std::string>* const words = skip_list(config);
  if (words == nullptr) return;
  complete.insert(complete.end(), words->begin(), words->end());
  for (const std::string& module : linear_modules(source.slots)) {
    if (contains_any(module, *words)) complete.push_back(module);
  }
  if (auto* const awq = std::get_if<AwqConfig>(&config)) {
    add_skip_rules(*words, *awq);
  } else {
    complete.emplace_back(
        "lm_head");  // a list of bitsandbytes replaces the default one, which holds the head
  }
  std::sort(complete.begin(), complete.end());
  complete.erase(std::unique(complete.begin(), complete.end()), complete.end());
  *words = std::move(complete);
}

void list_quantized_modules(const ModelSource& source, const std::set<std::string>& quantized,
                            QuantizationConfig& config) {
  auto* const gptq = std::get_if<GPTQConfig>(&config);
  if (gptq == nullptr) return;
  std::vector<std::string> names;
  for (const ModuleSlot& slot : source.slots) {
    if (slot.role == ModuleRole::kLinear && quantized.contains(slot.name)) names.push_back(slot.name);
  }
  if (names.size() != linear_modules(source.slots).size()) gptq->modules_in_block_to_quantize = names;
}

namespace {

// The head's own rule, as GPTQModel writes it; nothing where the user has one.
Status add_head_rule(GPTQConfig& config, const std::string& head) {
  NIBBLE_TRY(const DynamicRule* const rule, find_dynamic_rule(config, head));
  if (rule != nullptr) return {};
  config.dynamic.push_back(
      {head,
       false,
       {{"bits", kHeadBits}, {"group_size", kHeadGroupSize}, {"sym", true}, {"desc_act", false}}});
  return {};
}

Expected<std::set<std::string>> wanted_modules(const ModelSource& source, QuantizationConfig& config) {
  std::set<std::string> modules = linear_modules(source.slots);
  auto* const gptq = std::get_if<GPTQConfig>(&config);
  if (gptq == nullptr || !gptq->lm_head) return modules;
  if (source.config.tie_word_embeddings) {
    return fail(ErrorCode::kInvalidArgument,
                "--lm-head: the head's weight is the embedding's, which stays in floating point")
        .with_fix("Leave --lm-head out: readers refuse a quantized head that is tied to the embedding.");
  }
  for (const ModuleSlot& slot : source.slots) {
    if (slot.role != ModuleRole::kHead) continue;
    NIBBLE_RETURN_IF_ERROR(add_head_rule(*gptq, slot.name));
    modules.insert(slot.name);
  }
  return modules;
}

std::vector<WantedLinear> wanted_linears(const Jobs& jobs) {
  std::vector<WantedLinear> linears;
  for (const auto& [name, job] : jobs.modules) {
    linears.push_back({name, job.out_features, job.in_features, job.settings.bits, job.group_size(),
                       job.settings.sym, job.settings.desc_act});
  }
  return linears;
}

int64_t* group_size_of(QuantizationConfig& config) {
  if (auto* const gptq = std::get_if<GPTQConfig>(&config)) return &gptq->group_size;
  if (auto* const awq = std::get_if<AwqConfig>(&config)) return &awq->group_size;
  return nullptr;
}

Status fill_jobs(const ModelSource& source, const QuantizeOptions& options,
                 const std::set<std::string>& modules, Jobs& jobs) {
  jobs.modules.clear();
  for (const std::string& module : modules) {
    NIBBLE_TRY(const bool skipped, is_skipped(jobs.config, module));
    if (skipped) continue;
    const Shape& shape = source.slot(module).shape;
    ModuleJob job = {module, shape[0], shape[1]};
    if (const auto* const gptq = std::get_if<GPTQConfig>(&jobs.config)) {
      NIBBLE_RETURN_IF_ERROR(gptq_job(options, *gptq, job));
    } else if (const auto* const awq = std::get_if<AwqConfig>(&jobs.config)) {
      NIBBLE_RETURN_IF_ERROR(awq_job(options, *awq, job));
    } else {
      job.settings.bits = std::get<BitsAndBytesConfig>(jobs.config).load_in_8bit ? 8 : 4;
    }
    jobs.modules.emplace(module, std::move(job));
  }
  return {};
}

}  // namespace

Expected<Jobs> make_jobs(const ModelSource& source, const QuantizeOptions& options) {
  Jobs jobs{.config = options.config, .modules = {}};
  NIBBLE_TRY(const std::set<std::string> modules, wanted_modules(source, jobs.config));
  NIBBLE_RETURN_IF_ERROR(fill_jobs(source, options, modules, jobs));
  if (jobs.modules.empty()) {
    return fail(ErrorCode::kInvalidArgument, "the rules leave no module to quantize")
        .with_fix("Check --dynamic and --skip: they match every linear layer.");
  }
  complete_skip_list(source, jobs.config);
  std::set<std::string> quantized;
  for (const auto& job : jobs.modules) quantized.insert(job.first);
  list_quantized_modules(source, quantized, jobs.config);
  int64_t* const group_size = group_size_of(jobs.config);
  if (group_size == nullptr) return jobs;
  if (options.fit_group_size) {
    const bool needs_whole_groups = std::holds_alternative<AwqConfig>(jobs.config) || options.engine;
    const auto fitting = fitting_group_size(options.engine, wanted_linears(jobs), *group_size);
    if (needs_whole_groups && fitting && *fitting != *group_size) {
      *group_size = *fitting;
      NIBBLE_RETURN_IF_ERROR(fill_jobs(source, options, modules, jobs));
    }
  }
  NIBBLE_RETURN_IF_ERROR(check_group_size(jobs.config, wanted_linears(jobs)));
  if (options.engine) {
    NIBBLE_RETURN_IF_ERROR(check_engine(*options.engine, jobs.config, wanted_linears(jobs)));
  }
  for (const auto& [name, job] : jobs.modules) {
    NIBBLE_RETURN_IF_ERROR(at(name, encoded_tensors(job.layout, job.settings.bits, job.out_features,
                                                    job.in_features, job.settings.group_size)));
  }
  return jobs;
}

}  // namespace nibble
