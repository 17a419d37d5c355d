#include "nibble/cli/doctor_model.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "nibble/models/model_source.h"
#include "nibble/pipeline/run_plan.h"

namespace nibble::cli {
namespace {

constexpr size_t kNamedModules = 2;  // of those that share a reason

// The parts of a kernel's name: weights, arithmetic (not of float weights), instruction set.
struct Word {
  std::string_view part;
  std::string_view meaning;
};
constexpr Word kWeights[] = {{"int", "integer codes"},
                             {"codebook", "codes of a table"},
                             {"llm-int8", "LLM.int8, outliers in floating point"},
                             {"f32", "float32 weights as they are stored"},
                             {"f16", "float16 weights as they are stored"},
                             {"bf16", "bfloat16 weights as they are stored"},
                             {"reference", "plain loops with sums in double: --backend auto is faster"}};
constexpr Word kArithmetic[] = {{"-a8-", " times activations in int8"},
                                {"-f32-", ", dequantized, times activations in float32"},
                                {"-bf16-", ", dequantized, times activations in bfloat16"}};

std::string meaning_of(std::string_view kernel) {
  std::string meaning;
  for (const Word& word : kWeights) {
    if (kernel.starts_with(word.part)) meaning = word.meaning;
  }
  for (const Word& word : kArithmetic) {
    if (kernel.find(word.part) != kernel.npos) meaning += word.meaning;
  }
  return meaning;
}

// Why a weight that is stored so has to be multiplied as floats.
std::string reason_of(const LinearStorage& storage, const LinearSize& size) {
  if (storage.formula == WeightFormula::kCodebook && size.in_features % storage.group_size != 0) {
    return fmt::format(
        "blocks of {} weights cross the ends of rows of {}: multiplied as floats; a blocksize that divides "
        "rows would be faster",
        storage.group_size, size.in_features);
  }
  return fmt::format(
      "groups of {}: filled up to whole blocks of 32 inputs they would waste more than a quarter, so that "
      "they are "
      "multiplied as floats; groups of 32 or more would be faster",
      storage.group_size);
}

// From headers alone; of a model that is quantized as it is stored.
Expected<std::vector<SlowLayers>> find_slow_layers(const ModelSource& source) {
  std::vector<SlowLayers> slow;
  NIBBLE_TRY(const StorageMap storage, stored_linears(source));
  for (const ModuleSlot& slot : source.slots) {
    const auto found = storage.find(slot.name);
    if (found == storage.end()) continue;
    const LinearSize size = linear_size(slot.shape[0], slot.shape[1], found->second, false);
    if (size.kind != LinearKind::kFloatRows) continue;
    const std::string reason = reason_of(found->second, size);
    auto same =
        std::find_if(slow.begin(), slow.end(), [&](const SlowLayers& s) { return s.reason == reason; });
    if (same == slow.end()) same = slow.insert(slow.end(), {reason, {}});
    same->modules.push_back(slot.name);
  }
  return slow;
}

}  // namespace

std::vector<KernelUse> explain_kernels(const std::string& kernels) {
  std::vector<KernelUse> uses;
  std::string_view rest = kernels;
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(", "), rest.size());
    const std::string_view item = rest.substr(0, comma);
    rest.remove_prefix(std::min(rest.size(), comma + 2));
    const size_t cross = item.find(" x ");
    if (cross == item.npos) continue;
    KernelUse use;
    std::from_chars(item.data(), item.data() + cross, use.layers);
    use.kernel = item.substr(cross + 3);
    use.meaning = meaning_of(use.kernel);
    uses.push_back(std::move(use));
  }
  return uses;
}

Expected<ModelKernels> look_at_kernels(const std::string& model, const FromPretrainedOptions& load,
                                       ThreadPool& pool) {
  NIBBLE_TRY(const auto loaded, AutoModelForCausalLM::from_pretrained(model, load, pool));
  ModelKernels out;
  out.model = model;
  out.quantization = quantization_name(loaded->quantization_config());
  const bool exact = loaded->compute() == ComputeMode::kF32;
  out.compute = exact ? "f32" : "auto";
  out.kernels = explain_kernels(loaded->kernels());
  if (exact || load.quantization_config) return out;
  NIBBLE_TRY(const ModelFiles files, find_model(model, load.revision));
  NIBBLE_TRY(const ModelSource source, ModelSource::open(files));
  NIBBLE_TRY(out.slow, find_slow_layers(source));
  return out;
}

Json to_json(const ModelKernels& model) {
  Json kernels = Json::array();
  for (const KernelUse& use : model.kernels) {
    kernels.push_back({{"kernel", use.kernel}, {"layers", use.layers}, {"meaning", use.meaning}});
  }
  Json slow = Json::array();
  for (const SlowLayers& layers : model.slow) {
    slow.push_back({{"reason", layers.reason}, {"modules", layers.modules}});
  }
  return {{"model", model.model},
          {"quantization", model.quantization},
          {"compute", model.compute},
          {"kernels", kernels},
          {"slow", slow}};
}

std::string to_text(const ModelKernels& model) {
  std::string out =
      fmt::format("{}: {}, --compute {}\n", model.model,
                  model.quantization == "none" ? "not quantized" : model.quantization, model.compute);
  for (const KernelUse& use : model.kernels) {
    out += fmt::format("{:5} x {:<20} {}\n", use.layers, use.kernel, use.meaning);
  }
  for (const SlowLayers& layers : model.slow) {
    std::string names;
    for (size_t i = 0; i < std::min(kNamedModules, layers.modules.size()); ++i) {
      names += (i > 0 ? ", " : "") + layers.modules[i];
    }
    out += fmt::format("- {} layers ({}{}) have {}\n", layers.modules.size(), names,
                       layers.modules.size() > kNamedModules ? ", ..." : "", layers.reason);
  }
  if (model.compute == "f32") {
    out += "- --compute f32 keeps weights and sums exact: auto multiplies integers\n";
  } else if (model.quantization == "none") {
    out +=
        "- float weights: --quantize nf4, or nibble quantize, reads a quarter of the bytes for each token\n";
  }
  return out;
}

}  // namespace nibble::cli
