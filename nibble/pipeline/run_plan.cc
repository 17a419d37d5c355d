#include "nibble/pipeline/run_plan.h"

#include <algorithm>
#include <cmath>

#include "nibble/base/cpu_target.h"
#include "nibble/kernels/attention.h"
#include "nibble/models/forward_memory.h"
#include "nibble/models/load_weights.h"
#include "nibble/nn/int8_weight.h"
#include "nibble/quantization/formats/formats.h"
#include "nibble/quantization/formats/gptq.h"

namespace nibble {
namespace {

// --- memory ---

// Measured: the program and its libraries, and what a tokenizer holds for each byte of its file.
constexpr size_t kRunProgramBytes = 15'000'000;
constexpr size_t kRunTokenizerFactor = 3;
// Pages that a read of a mapped file brings in with the one that was asked for ("fault around").
constexpr size_t kFaultBytes = size_t{64} << 10;

// --- speed: fitted to whole runs, docs/plan.md ---

struct KindSpeed {
  double read_share;     // of the bandwidth of all threads, when one token reads the weight
  double compute_share;  // of the peak of the arithmetic it uses, when many tokens do
  bool integers;
};

KindSpeed speed_of(const LinearSize& size) {
  if (size.llm_int8) return {0.80, 0.48, true};
  // Sums of a group become floats at its end.
  const bool short_groups = size.num_groups * 64 >= size.in_features;
  const double compute_share = short_groups ? 0.63 : 0.78;
  switch (size.kind) {
    case LinearKind::kDense:
      return {0.85, 0.75, false};
    case LinearKind::kSmallCodes:
      return {0.75, compute_share, true};
    case LinearKind::kBytes:
      return {0.80, compute_share, true};
    case LinearKind::kFloatRows:
      return {0.15, 0.60, false};
  }
  return {};
}

constexpr double kKvReadShare = 0.7;
constexpr double kAttentionShare = 0.3;     // of the float32 peak
constexpr double kSecondsPerLinear = 4e-6;  // starting and ending a loop of all threads
// Of one thread, for a value that a linear reads or writes: norms, activations, rotation, quantizing.
constexpr double kSecondsPerValue = 1.1e-9;

struct Module {
  const ModuleSlot* slot;
  LinearSize size;
};

// Whether a float head is kept in 8 bits: as WeightLoader::head().
bool has_int8_head(const StorageMap& storage) {
  return std::ranges::any_of(storage, [](const auto& entry) {
    return !entry.second.is_float() && entry.second.formula != WeightFormula::kRowAbsmax;
  });
}

LinearStorage head_storage(DType dtype, bool int8) {
  if (!int8) return {.dtype = dtype};
  return {.bits = 8, .group_size = kInt8WeightGroup};
}

// The modules that are multiplied by, with a head that is the embedding last.
std::map<std::string, Module, std::less<>> multiplied_modules(const ModelSource& source,
                                                              const StorageMap& storage, bool huge_pages) {
  std::map<std::string, Module, std::less<>> modules;
  const ModuleSlot* embedding = nullptr;
  for (const ModuleSlot& slot : source.slots) {
    if (slot.role == ModuleRole::kEmbedding && embedding == nullptr) embedding = &slot;
    const auto found = storage.find(slot.name);
    if (found == storage.end()) continue;
    LinearStorage how = found->second;
    if (slot.role == ModuleRole::kHead && how.is_float())
      how = head_storage(*how.dtype, has_int8_head(storage));
    modules[slot.name] = {&slot, linear_size(slot.shape[0], slot.shape[1], how, huge_pages)};
    if (slot.role == ModuleRole::kHead) modules[slot.name].size.rows_per_token = 2;
  }
  for (size_t layer = 0; layer < source.config.num_hidden_layers; ++layer) {
    const BlockModules block = block_modules(source.spec, layer, source.prefix_missing);
    for (const std::string& name : linears_of_block(block)) {
      const auto found = modules.find(name);
      if (found == modules.end()) continue;
      if (activation_bits(block, name) == ActivationBits::k16) found->second.size.rows_per_token = 2;
    }
  }
  const std::string head = name_in_file(source.spec, source.spec.names.head, source.prefix_missing);
  if (source.config.tie_word_embeddings && embedding != nullptr) {
    const TensorInfo* const info = source.checkpoint->find(embedding->name + ".weight");
    if (info != nullptr) {
      const LinearStorage how = head_storage(info->dtype, has_int8_head(storage));
      modules[head] = {embedding, linear_size(embedding->shape[0], embedding->shape[1], how, huge_pages)};
      modules[head].size.rows_per_token = 2;
    }
  }
  return modules;
}

size_t stored_bytes(const ModelSource& source, const std::string& tensor) {
  const TensorInfo* const info = source.checkpoint->find(tensor);
  return info == nullptr ? 0 : num_bytes(*info).value_or(0);
}

KvCacheShape kv_cache_shape(const PretrainedConfig& config, const RunSettings& settings) {
  return {config.num_hidden_layers, config.num_key_value_heads, config.head_dim, settings.kv_cache_type,
          config.value_head_dim};
}

// Of one sequence, in the buffers of nn/kv_cache.h. A window of attention does not shorten the cache.
size_t kv_cache_bytes(const PretrainedConfig& config, const RunSettings& settings) {
  const KvCacheShape shape = kv_cache_shape(config, settings);
  const size_t blocks = kv_blocks_per_buffer(shape, settings.context);
  const size_t tokens = blocks * kernels::kAttentionBlock;
  const size_t buffers = (settings.context + tokens - 1) / tokens;
  return buffers * buffer_resident_bytes(blocks * kv_block_bytes(shape), settings.huge_pages);
}

// Rows of an embedding are read one by one, here and there, each with the pages around it. A text of n tokens
// has about n^0.85 different ones (English, 49152 tokens: 286 of 512, 878 of 2048, often neighbours).
size_t touched_embedding_bytes(size_t bytes, size_t tokens) {
  const double pieces = static_cast<double>(bytes) / static_cast<double>(kFaultBytes);
  if (pieces < 1) return bytes;
  const double different = std::pow(static_cast<double>(tokens), 0.85);
  return static_cast<size_t>(static_cast<double>(bytes) * (1.0 - std::exp(-different / pieces)));
}

// What decoding the codes of a module takes: one byte per code, scales and zero points as floats, and the
// tensors they come from. Codes of bitsandbytes may be made of float weights while loading.
size_t decoded_bytes(const ModelSource& source, const std::string& name, const Module& module,
                     const LinearStorage& storage) {
  const size_t weights = module.size.out_features * module.size.in_features;
  const size_t floats = storage.formula == WeightFormula::kCodebook
                            ? weights / std::max<size_t>(1, storage.group_size)
                            : 2 * module.size.out_features * module.size.num_groups;
  const size_t stored = stored_bytes(source, name + ".weight");
  return weights + floats * sizeof(float) + (stored > 0 ? stored : module.size.weight_bytes);
}

// Loading decodes the linears of a block together, then packs them one by one. Before the last block is
// packed, all others are there.
size_t loading_bytes(const ModelSource& source, const StorageMap& storage,
                     const std::map<std::string, Module, std::less<>>& modules) {
  const size_t last = source.config.num_hidden_layers - 1;
  size_t decoded = 0;
  size_t packed = 0;
  size_t largest = 0;
  for (const std::string& name : linears_of_block(block_modules(source.spec, last, source.prefix_missing))) {
    const auto how = storage.find(name);
    const auto module = modules.find(name);
    if (how == storage.end() || module == modules.end() || how->second.is_float()) continue;
    decoded += decoded_bytes(source, name, module->second, how->second);
    packed += module->second.size.buffer_bytes;
    largest = std::max(largest, module->second.size.buffer_bytes);
  }
  return decoded + largest > packed ? decoded + largest - packed : 0;
}

// --- speed ---

struct Work {
  double decode_seconds = 0;   // for a token
  double prefill_seconds = 0;  // for a token of many
};

Work linear_work(const ModelSource& source, const std::map<std::string, Module, std::less<>>& modules,
                 const linalg::MachineSpeed& speed, size_t threads) {
  // Of experts, those that a token goes to.
  const size_t experts = std::max<size_t>(1, source.spec.num_experts);
  const size_t used = source.spec.num_experts > 0 ? source.spec.experts_per_token : 1;
  const double share_of_experts = static_cast<double>(used) / static_cast<double>(experts);
  Work work;
  for (const auto& [name, module] : modules) {
    const KindSpeed kind = speed_of(module.size);
    const bool expert = !source.spec.names.block.experts.empty() &&
                        name.find(fmt::format(".{}.", source.spec.names.block.experts)) != std::string::npos;
    const double share = expert ? share_of_experts : 1.0;
    const auto bytes = static_cast<double>(module.size.weight_bytes);
    work.decode_seconds += share * (bytes / (speed.read.all_threads * kind.read_share) + kSecondsPerLinear);
    const bool head = module.slot->role == ModuleRole::kHead || module.slot->role == ModuleRole::kEmbedding;
    if (head) continue;  // a prompt needs it once
    const bool integers = kind.integers && speed.int8.all_threads > 0;
    const double peak = integers ? speed.int8.all_threads : speed.f32.all_threads;
    // Tiles multiply both rows of 16 bits in the time that the probe's instructions take for one.
    const bool one_row = !integers || cpu_target() == CpuTarget::kAmx;
    const double rows = one_row ? 1.0 : static_cast<double>(module.size.rows_per_token);
    const double operations =
        2.0 * rows * static_cast<double>(module.size.out_features * module.size.in_features);
    const auto values = static_cast<double>(module.size.out_features + module.size.in_features);
    work.prefill_seconds += share * (operations / (peak * kind.compute_share) +
                                     values * kSecondsPerValue / static_cast<double>(threads));
  }
  return work;
}

// Tokens that the layers see behind `length` others, added up over the layers.
double seen_tokens(const DecoderSpec& spec, size_t length) {
  double tokens = 0;
  for (const size_t window : spec.window) {
    tokens += static_cast<double>(window > 0 ? std::min(window, length) : length);
  }
  return tokens;
}

void estimate_speed(const ModelSource& source, const std::map<std::string, Module, std::less<>>& modules,
                    const RunSettings& settings, const linalg::MachineSpeed& speed, RunPlan& plan) {
  if (speed.read.all_threads <= 0 || speed.f32.all_threads <= 0) return;
  const PretrainedConfig& config = source.config;
  const Work work = linear_work(source, modules, speed, settings.threads);
  const double kv_per_layer = static_cast<double>(kv_block_bytes(kv_cache_shape(config, settings))) /
                              static_cast<double>(config.num_hidden_layers * kernels::kAttentionBlock);
  const double full =
      seen_tokens(source.spec, settings.context) * kv_per_layer / (speed.read.all_threads * kKvReadShare);
  // A prompt of one chunk: each token sees half of it. Scores and sums of values: four operations.
  const double pairs = seen_tokens(source.spec, std::min(settings.context, settings.prefill_chunk) / 2);
  const double attention =
      2.0 * pairs *
      static_cast<double>(config.num_attention_heads * (config.head_dim + config.value_head_dim));
  plan.decode_tokens_per_second = 1.0 / work.decode_seconds;
  plan.decode_full_tokens_per_second = 1.0 / (work.decode_seconds + full);
  plan.prefill_tokens_per_second =
      1.0 / (work.prefill_seconds + attention / (speed.f32.all_threads * kAttentionShare));
}

LinearStorage storage_of(const ModuleSummary& summary) {
  LinearStorage storage = {.bits = summary.bits, .group_size = summary.group_size};
  if (summary.format.starts_with("bitsandbytes")) {
    storage.formula = summary.bits == 8 ? WeightFormula::kRowAbsmax : WeightFormula::kCodebook;
  } else if (summary.format.find("gemv_fast") != std::string::npos ||
             summary.format.find("llm-awq") != std::string::npos) {
    storage.formula = WeightFormula::kOffset;
  }
  return storage;
}

bool is_multiplied(const ModuleSlot& slot) {
  return slot.role == ModuleRole::kLinear || slot.role == ModuleRole::kHead ||
         slot.role == ModuleRole::kRouter;
}

}  // namespace

Expected<StorageMap> stored_linears(const ModelSource& source) {
  StorageMap storage;
  for (const ModuleSlot& slot : source.slots) {
    if (!is_multiplied(slot)) continue;
    if (!source.quantized.contains(slot.name)) {
      const TensorInfo* const info = source.checkpoint->find(slot.name + ".weight");
      if (info != nullptr) storage[slot.name] = {.dtype = info->dtype};
      continue;
    }
    NIBBLE_TRY(const ModuleSummary summary,
               summarize_module(*source.checkpoint, slot.name, *source.quantization));
    LinearStorage& found = storage[slot.name] = storage_of(summary);
    if (const auto* const gptq = std::get_if<GPTQConfig>(&*source.quantization)) {
      NIBBLE_TRY(const GptqParameters parameters, gptq_parameters(*gptq, slot.name));
      found.zeros_differ = !parameters.sym;
      found.sorted = parameters.desc_act;
    } else if (const auto* const awq = std::get_if<AwqConfig>(&*source.quantization)) {
      found.zeros_differ = awq->zero_point;
    }
  }
  return storage;
}

StorageMap quantized_linears(const ModelSource& source, const Jobs& jobs) {
  StorageMap storage;
  for (const ModuleSlot& slot : source.slots) {
    if (!is_multiplied(slot)) continue;
    const ModuleJob* const job = jobs.find(slot.name);
    if (job == nullptr) {
      const TensorInfo* const info = source.checkpoint->find(slot.name + ".weight");
      if (info != nullptr) storage[slot.name] = {.dtype = info->dtype};
      continue;
    }
    if (const auto* const bnb = std::get_if<BitsAndBytesConfig>(&jobs.config)) {
      storage[slot.name] = bnb->load_in_8bit
                               ? LinearStorage{.formula = WeightFormula::kRowAbsmax, .bits = 8}
                               : LinearStorage{.formula = WeightFormula::kCodebook, .group_size = 64};
      continue;
    }
    const size_t group = job->settings.group_size;
    storage[slot.name] = {.formula = job->layout == AffineLayout::kAwqGemvFast ? WeightFormula::kOffset
                                                                               : WeightFormula::kAffine,
                          .bits = job->settings.bits,
                          .group_size = group == 0 ? job->in_features : group,
                          .zeros_differ = !job->settings.sym,
                          .sorted = job->settings.desc_act};
  }
  return storage;
}

RunPlan plan_run(const ModelSource& source, const StorageMap& storage, const RunSettings& settings,
                 const linalg::MachineSpeed& speed) {
  const auto modules = multiplied_modules(source, storage, settings.huge_pages);
  RunPlan plan;
  for (const auto& [name, module] : modules) {
    plan.bytes_per_token += module.size.weight_bytes;
    plan.buffer_bytes += module.size.buffer_bytes;
    if (module.size.kind == LinearKind::kDense) plan.mapped_bytes += module.size.weight_bytes;
    // A head that is the embedding is counted as that.
    if (module.slot->role != ModuleRole::kEmbedding || module.size.kind != LinearKind::kDense) {
      plan.weight_bytes += module.size.weight_bytes;
    }
  }
  for (const ModuleSlot& slot : source.slots) {
    const size_t bytes = stored_bytes(source, slot.name + ".weight");
    if (slot.role == ModuleRole::kEmbedding) {
      plan.weight_bytes += bytes;
      const bool is_head = source.config.tie_word_embeddings && !has_int8_head(storage);
      if (!is_head) plan.mapped_bytes += touched_embedding_bytes(bytes, settings.context * settings.parallel);
    } else if (slot.role == ModuleRole::kNorm) {
      const size_t floats = num_elements(slot.shape).value_or(0) +
                            (source.checkpoint->find(slot.name + ".bias") != nullptr ? slot.shape[0] : 0);
      plan.weight_bytes += floats * sizeof(float);
      plan.buffer_bytes += floats * sizeof(float);
    }
  }

  plan.program_bytes = kRunProgramBytes + kRunTokenizerFactor * source.tokenizer_bytes;
  plan.kv_bytes = settings.parallel * kv_cache_bytes(source.config, settings);
  const size_t tokens = std::max(settings.parallel, std::min(settings.prefill_chunk, settings.context));
  const ForwardShape shape = {source.spec, source.config, source.prefix_missing};
  const auto size_of = [&](const std::string& name) {
    const auto found = modules.find(name);
    return found == modules.end() ? LinearSize() : found->second.size;
  };
  const size_t arena = forward_arena_bytes(shape, size_of, tokens, settings.parallel, settings.threads);
  // Logits and the sampler's counts, per sequence; its tokens.
  const size_t sampling = settings.parallel * (source.config.vocab_size * 9 + settings.context * 8);
  plan.scratch_bytes = buffer_resident_bytes(arena, settings.huge_pages) + sampling;
  plan.loading_bytes = loading_bytes(source, storage, modules);
  const size_t weights = plan.program_bytes + plan.buffer_bytes;
  plan.peak_memory =
      weights + std::max(plan.loading_bytes, plan.mapped_bytes + plan.kv_bytes + plan.scratch_bytes);
  estimate_speed(source, modules, settings, speed, plan);
  return plan;
}

}  // namespace nibble
