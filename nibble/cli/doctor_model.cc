#include "nibble/cli/doctor_model.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include <fmt/format.h>

#include "nibble/evaluation/text_windows.h"
#include "nibble/models/causal_lm.h"
#include "nibble/models/model_source.h"
#include "nibble/nn/kv_cache.h"
#include "nibble/pipeline/run_plan.h"

namespace nibble::cli {
namespace {

constexpr size_t kNamedModules = 2;  // of those that share a reason
constexpr size_t kTextTokens = 256;

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
                                {"-a16-", " times activations in int16, as two rows of int8"},
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

// Whose input it was that the context counted: observers are called behind each linear.
class SpikeCounter final : public ForwardObserver {
 public:
  SpikeCounter(const ExecutionContext& context, size_t num_blocks)
      : context_(context), num_blocks_(num_blocks) {}

  void linear(size_t layer, std::string_view name, MatrixView<const float>,
              MatrixView<const float>) override {
    count(layer, name);
  }
  void block(size_t layer, MatrixView<const float>) override { count(layer, "experts"); }

  std::vector<SpikyInputs> found;

 private:
  void count(size_t layer, std::string_view name) {
    const size_t tokens = context_.finer_tokens - seen_;
    seen_ = context_.finer_tokens;
    if (tokens == 0) return;
    auto of = std::ranges::find(found, name, &SpikyInputs::linear);
    if (of == found.end())
      of = found.insert(found.end(), {std::string(name), std::vector<size_t>(num_blocks_)});
    of->in_block[layer] += tokens;
  }

  const ExecutionContext& context_;
  const size_t num_blocks_;
  size_t seen_ = 0;
};

bool takes_8_bits(const KernelUse& use) { return use.kernel.find("-a8-") != std::string::npos; }

// Reads the beginning of a text. A model without a tokenizer is left as it is: this is a look at the machine.
Status find_spikes(const CausalLM& model, const ModelFiles& files, ThreadPool& pool, ModelKernels& out) {
  const auto text = cut_text(default_evaluation_text(), "",
                             {.window = kTextTokens, .max_tokens = kTextTokens}, files, model.config());
  if (!text) return {};
  const std::vector<int32_t>& tokens = text->windows.front().tokens;
  const auto cache = model.make_cache(tokens.size());
  Arena arena;
  ExecutionContext context{pool, arena};
  SpikeCounter counter(context, model.config().num_hidden_layers);
  context.observer = &counter;
  const SequenceChunk chunk = {tokens, cache.get(), /*num_logits=*/0};
  NIBBLE_RETURN_IF_ERROR(model.forward_hidden({&chunk, 1}, {}, context));
  out.text_tokens = tokens.size();
  out.spiky = std::move(counter.found);
  return {};
}

// "- of 256 tokens ...": a line for each, or one that says there is none.
std::string spikes_text(const ModelKernels& model) {
  if (model.text_tokens == 0) return "";
  if (model.spiky.empty()) {
    return fmt::format(
        "- none of {} tokens of a text has spikes in which 8-bit activations would lose the rest\n",
        model.text_tokens);
  }
  std::string out;
  for (const SpikyInputs& input : model.spiky) {
    const auto most = std::ranges::max_element(input.in_block);
    const double mean = static_cast<double>(std::reduce(input.in_block.begin(), input.in_block.end())) /
                        static_cast<double>(input.in_block.size());
    out += fmt::format(
        "- spikes: {} reads some tokens in 16 bits, since 8 would lose the rest of them: of {} tokens of a "
        "text {:.1f} in the "
        "mean of {} blocks, {} in block {}\n",
        input.linear, model.text_tokens, mean, input.in_block.size(), *most, most - input.in_block.begin());
  }
  return out;
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
  if (exact) return out;
  NIBBLE_TRY(const ModelFiles files, find_model(model, load.revision));
  if (std::ranges::any_of(out.kernels, takes_8_bits))
    NIBBLE_RETURN_IF_ERROR(find_spikes(*loaded, files, pool, out));
  if (load.quantization_config) return out;
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
  Json spiky = Json::array();
  for (const SpikyInputs& input : model.spiky) {
    spiky.push_back({{"linear", input.linear}, {"tokens_in_block", input.in_block}});
  }
  return {{"model", model.model},
          {"quantization", model.quantization},
          {"compute", model.compute},
          {"kernels", kernels},
          {"slow", slow},
          {"text_tokens", model.text_tokens},
          {"spiky", spiky}};
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
  out += spikes_text(model);
  if (model.compute == "f32") {
    out += "- --compute f32 keeps weights and sums exact: auto multiplies integers\n";
  } else if (model.quantization == "none") {
    out +=
        "- float weights: --quantize nf4, or nibble quantize, reads a quarter of the bytes for each token\n";
  }
  return out;
}

}  // namespace nibble::cli
