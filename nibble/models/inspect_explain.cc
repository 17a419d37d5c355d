#include "nibble/models/inspect_explain.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include <fmt/format.h>

#include "nibble/base/log.h"
#include "nibble/base/text.h"
#include "nibble/models/architecture.h"
#include "nibble/models/inspect_files.h"
#include "nibble/models/inspect_tokenizer.h"
#include "nibble/models/module_slots.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

constexpr size_t kNamed = 3;  // modules that an answer names

std::string modules_text(size_t count) { return fmt::format("{} module{}", count, count == 1 ? "" : "s"); }

// What decoding every module showed.
struct Decoded {
  std::map<std::string, std::vector<std::string>> by_layout;  // "gptq, 4 bits, groups of 128" -> modules
  std::map<std::string, std::vector<std::string>> by_format;
  std::vector<std::string> reordered;  // whose inputs are not in their own order
  std::vector<std::string> nested;     // bitsandbytes: absmax is quantized, too
  std::vector<std::string> failed;     // "MODULE: why"
  std::vector<std::string> warnings;   // what data and config disagreed on
};

Decoded decode_all(const InspectedFiles& files) {
  Decoded all;
  const size_t said_before = warnings().size();
  for (const std::string& module : files.quantized_modules) {
    const Checkpoint& checkpoint = *files.checkpoint;
    const auto decoded = decode_module(checkpoint, module, *files.quantization.config, std::nullopt);
    if (!decoded) {
      const Error& error = decoded.error();
      all.failed.push_back(error.where.empty() ? error.what : fmt::format("{}: {}", error.where, error.what));
      continue;
    }
    const QuantizedWeight& weight = decoded->weight;
    const bool one_group = weight.group_size >= weight.in_features && weight.absmax.empty();
    const std::string groups = weight.formula == WeightFormula::kRowAbsmax ? "a scale for each row"
                               : one_group ? std::string("one group for each row")
                                           : fmt::format("groups of {}", weight.group_size);
    all.by_layout[fmt::format("{}, {} bits, {}", decoded->format, weight.bits, groups)].push_back(module);
    all.by_format[decoded->format].push_back(module);
    if (!weight.g_idx.empty()) all.reordered.push_back(module);
    if (checkpoint.find(module + ".weight.nested_absmax") != nullptr) all.nested.push_back(module);
    for (const std::string& name : decoded->tensors) checkpoint.drop(name);
  }
  const std::vector<std::string> said = warnings();
  all.warnings.assign(said.begin() + static_cast<ptrdiff_t>(said_before), said.end());
  return all;
}

// "config.json: bits is 4", for those of the keys that the configuration has.
void add_settings(const InspectedFiles& files, std::initializer_list<std::string_view> keys, Answer& answer) {
  for (const std::string_view key : keys) {
    for (const ConfigOrigin& origin : files.quantization.origins) {
      if (origin.key == key)
        answer.evidence.push_back(fmt::format("{}: {} is {}", origin.origin, key, origin.value));
    }
  }
}

Answer explain_method(const InspectedFiles& files) {
  Answer answer{"method", quantization_name(files.quantization.config), {}, {}};
  add_settings(files, {"quant_method", "load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type"}, answer);
  if (!files.quantization.config)
    answer.evidence.emplace_back("config.json: there is no quantization_config");
  if (files.quantized_modules.empty()) {
    answer.evidence.emplace_back("no tensor has the name of codes");
    if (files.quantization.config)
      answer.disagreed.emplace_back("the configuration names a method, but no module is stored as codes");
  } else {
    const std::string& module = files.quantized_modules.front();
    std::vector<std::string> suffixes;
    for (const std::string& name : tensors_of_module(*files.checkpoint, module))
      suffixes.push_back(name.substr(module.size() + 1));
    answer.evidence.push_back(fmt::format(
        "{}: {} with the tensors {}",
        files.checkpoint->file_of(fmt::format("{}.{}", module, suffixes.empty() ? "" : suffixes[0])), module,
        fmt::join(suffixes, ", ")));
  }
  return answer;
}

Answer explain_layout(const InspectedFiles& files, const Decoded& decoded) {
  Answer answer{"layout", {}, {}, decoded.failed};
  std::vector<std::string> layouts;
  for (const auto& [layout, modules] : decoded.by_layout) {
    layouts.push_back(layout);
    answer.evidence.push_back(
        fmt::format("{} in {}: {}", layout, modules_text(modules.size()), some_of(modules, kNamed)));
  }
  answer.answer = layouts.empty() ? "none could be read" : fmt::format("{}", fmt::join(layouts, "; "));
  add_settings(files, {"bits", "group_size", "checkpoint_format", "version", "format"}, answer);
  return answer;
}

// What the format makes of a stored zero point.
std::string_view zero_point_rule(std::string_view format) {
  if (format == "gptq") return "stored as zero - 1";
  if (format == "gptq_v2" || format == "gptq_p") return "stored as they are";
  if (format.starts_with("awq")) return "stored as they are";
  if (format.starts_with("pack-quantized")) return "stored as they are; the middle code where there are none";
  return "none: codes stand for fixed values times absmax";
}

Answer explain_zero_points(const InspectedFiles& files, const Decoded& decoded) {
  Answer answer{"zero points", {}, {}, decoded.warnings};
  std::set<std::string> rules;
  for (const auto& [format, modules] : decoded.by_format) {
    rules.emplace(zero_point_rule(format));
    answer.evidence.push_back(
        fmt::format("{} in {}: {}", format, modules_text(modules.size()), zero_point_rule(format)));
  }
  answer.answer = rules.empty() ? "unknown" : fmt::format("{}", fmt::join(rules, "; "));
  add_settings(files, {"checkpoint_format", "sym", "zero_point", "bnb_4bit_use_double_quant"}, answer);
  if (!decoded.nested.empty()) {
    answer.evidence.push_back(
        fmt::format("absmax is quantized, too (nested_absmax) in {}", modules_text(decoded.nested.size())));
  }
  return answer;
}

Answer explain_order(const InspectedFiles& files, const Decoded& decoded) {
  Answer answer{"order of inputs", {}, {}, {}};
  add_settings(files, {"desc_act", "static_groups", "act_group_aware"}, answer);
  size_t with_g_idx = 0;
  for (const std::string& module : files.quantized_modules) {
    const bool has = files.checkpoint->find(module + ".g_idx") != nullptr ||
                     files.checkpoint->find(module + ".weight_g_idx") != nullptr;
    with_g_idx += has ? 1u : 0u;
  }
  answer.evidence.push_back(fmt::format("{} of {} have g_idx, {} with another order than input / group_size",
                                        with_g_idx, modules_text(files.quantized_modules.size()),
                                        decoded.reordered.size()));
  answer.answer = decoded.reordered.empty() ? "their own" : "g_idx tells the group";
  const auto* gptq = std::get_if<GPTQConfig>(&*files.quantization.config);
  if (gptq != nullptr && gptq->desc_act && !gptq->static_groups && decoded.reordered.empty())
    answer.disagreed.emplace_back("desc_act is true, but no g_idx has an order: the data counts");
  if (gptq != nullptr && !gptq->desc_act && !decoded.reordered.empty())
    answer.disagreed.push_back(fmt::format("desc_act is false, but g_idx has an order in {}: the data counts",
                                           some_of(decoded.reordered, kNamed)));
  return answer;
}

// Whether the configuration lists the module among those that stay as they are.
bool is_listed(const std::string& module, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [&module](const std::string& name) {
    return !name.empty() && module.find(name) != module.npos;
  });
}

std::vector<std::string> skipped_by_config(const QuantizationConfig& config) {
  if (const auto* awq = std::get_if<AwqConfig>(&config)) return awq->modules_to_not_convert;
  if (const auto* bnb = std::get_if<BitsAndBytesConfig>(&config))
    return bnb->llm_int8_skip_modules.value_or(std::vector<std::string>());
  return {};
}

Answer explain_modules(const InspectedFiles& files, const Status& structure) {
  Answer answer{"modules", {}, {}, {}};
  const std::set<std::string> quantized(files.quantized_modules.begin(), files.quantized_modules.end());
  std::vector<std::string> others;
  for (const auto& [name, info] : files.checkpoint->tensors()) {
    constexpr std::string_view kWeight = ".weight";
    if (info.shape.size() != 2 || !name.ends_with(kWeight)) continue;
    std::string module = name.substr(0, name.size() - kWeight.size());
    if (quantized.count(module) == 0) others.push_back(std::move(module));
  }
  answer.answer =
      fmt::format("{} stored as codes, {} matrices in floating point", quantized.size(), others.size());
  if (!quantized.empty())
    answer.evidence.push_back(fmt::format("codes: {}", some_of(files.quantized_modules, kNamed)));
  if (!others.empty()) answer.evidence.push_back(fmt::format("floating point: {}", some_of(others, kNamed)));
  if (files.quantization.config) {
    add_settings(files, {"modules_to_not_convert", "llm_int8_skip_modules", "lm_head", "dynamic", "ignore"},
                 answer);
    const auto skipped = skipped_by_config(*files.quantization.config);
    std::vector<std::string> listed;
    for (const std::string& module : files.quantized_modules) {
      if (is_listed(module, skipped)) listed.push_back(module);
    }
    if (!listed.empty()) {
      answer.disagreed.push_back(
          fmt::format("listed among those that stay as they are, but stored as codes: {}; the tensors count",
                      some_of(listed, kNamed)));
    }
  }
  if (!structure) {
    const Error& error = structure.error();
    answer.disagreed.push_back(error.where.empty() ? error.what
                                                   : fmt::format("{}: {}", error.where, error.what));
  }
  return answer;
}

Answer explain_tied(const InspectedFiles& files) {
  Answer answer{"tied weights", {}, {}, {}};
  const bool stated = files.json.contains("tie_word_embeddings");
  const bool tied = files.config ? files.config->tie_word_embeddings
                                 : files.json.value("tie_word_embeddings", Json(false)) == true;
  answer.evidence.push_back(fmt::format("config.json: tie_word_embeddings is {}{}", tied,
                                        stated ? "" : ", the default of its model_type"));
  std::string head = "lm_head.weight";
  std::string embedding = "model.embed_tokens.weight";
  if (files.supported) {
    if (const auto spec = make_decoder_spec(*files.config)) {
      for (const ModuleSlot& slot :
           module_slots(*spec, *files.config, prefix_is_missing(*files.checkpoint, *spec))) {
        if (slot.role == ModuleRole::kEmbedding && embedding == "model.embed_tokens.weight")
          embedding = slot.name + ".weight";
        if (slot.role == ModuleRole::kHead) head = slot.name + ".weight";
      }
    }
  }
  const bool has_head = files.checkpoint->find(head) != nullptr;
  answer.evidence.push_back(fmt::format("{}: {}", has_head ? files.checkpoint->file_of(head) : "weights",
                                        has_head ? head + " is there" : "there is no " + head));
  answer.answer = tied ? "the head is the embedding" : "the head has weights of its own";
  if (tied && has_head) {
    const auto head_tensor = files.checkpoint->tensor(head);
    const auto embedding_tensor = files.checkpoint->tensor(embedding);
    const bool same = head_tensor && embedding_tensor && head_tensor->shape == embedding_tensor->shape &&
                      std::equal(head_tensor->bytes.begin(), head_tensor->bytes.end(),
                                 embedding_tensor->bytes.begin(), embedding_tensor->bytes.end());
    if (same) {
      answer.evidence.push_back(fmt::format("{} has the bytes of {}", head, embedding));
    } else {
      answer.disagreed.push_back(fmt::format(
          "{} differs from {}, but tie_word_embeddings is true: the embedding is used", head, embedding));
    }
  }
  return answer;
}

Answer explain_tokenizer(const InspectedFiles& files, const TokenizerFile& found) {
  Answer answer{"tokenizer", found.kind, {}, {}};
  if (!found.file.empty()) answer.evidence.push_back(fmt::format("{}: {}", found.file, found.evidence));
  if (found.file.empty())
    answer.evidence.emplace_back(
        "no tokenizer.json, tokenizer.model, vocab.json with merges.txt, or vocab.txt");
  const Json& config = found.tokenizer_config;
  if (config.is_object() && config.contains("tokenizer_class") && config["tokenizer_class"].is_string()) {
    answer.evidence.push_back(fmt::format("tokenizer_config.json: tokenizer_class is \"{}\"",
                                          config["tokenizer_class"].get<std::string>()));
  }
  if (files.config)
    answer.evidence.push_back(fmt::format("config.json: vocab_size is {}", files.config->vocab_size));
  return answer;
}

}  // namespace

Expected<std::vector<Answer>> explain_model(const ModelFiles& files) {
  NIBBLE_TRY(const InspectedFiles opened, open_inspected(files));
  NIBBLE_TRY(const TokenizerFile tokenizer, at(files.name, find_tokenizer_file(files)));
  std::vector<Answer> answers = {explain_method(opened)};
  if (!opened.quantized_modules.empty()) {
    const Decoded decoded = decode_all(opened);
    answers.push_back(explain_layout(opened, decoded));
    answers.push_back(explain_zero_points(opened, decoded));
    answers.push_back(explain_order(opened, decoded));
  }
  answers.push_back(explain_modules(opened, check_tensors(opened)));
  answers.push_back(explain_tied(opened));
  answers.push_back(explain_tokenizer(opened, tokenizer));
  return answers;
}

}  // namespace nibble
