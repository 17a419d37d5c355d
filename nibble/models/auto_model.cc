#include "nibble/models/auto_model.h"

#include <algorithm>
#include <array>

#include "nibble/base/log.h"
#include "nibble/base/memory.h"
#include "nibble/base/temporary_folder.h"
#include "nibble/checkpoint/checkpoint.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/config/file_error.h"
#include "nibble/models/decoder.h"
#include "nibble/models/load_weights.h"
#include "nibble/models/module_slots.h"
#include "nibble/models/transposed_checkpoint.h"
#include "nibble/models/weight_loader.h"
#include "nibble/quantization/bitsandbytes.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

// What was asked for, or what the other options make of "auto".
Expected<KvCacheType> kv_cache_type_of(const FromPretrainedOptions& options) {
  if (options.kv_cache_type == "auto") {
    const bool exact = options.compute == ComputeMode::kF32 || options.attn_implementation == "eager";
    return exact ? KvCacheType::kF32 : KvCacheType::kF16;
  }
  for (const KvCacheType type : {KvCacheType::kF32, KvCacheType::kF16, KvCacheType::kInt8}) {
    if (options.kv_cache_type == kv_cache_type_name(type)) return type;
  }
  return fail(ErrorCode::kInvalidArgument, "kv_cache_type \"{}\"", options.kv_cache_type)
      .with_fix("Use auto, f32, f16 or int8.");
}

Status check_options(const FromPretrainedOptions& options) {
  if (options.device_map != "auto" && options.device_map != "cpu") {
    return fail(ErrorCode::kUnsupported, "device_map \"{}\"", options.device_map)
        .with_fix("Nibble runs on CPUs: use auto or cpu.");
  }
  constexpr std::array kImplementations = {"eager", "sdpa", "flash_attention_2"};
  if (std::find(kImplementations.begin(), kImplementations.end(), options.attn_implementation) ==
      kImplementations.end()) {
    return fail(ErrorCode::kInvalidArgument, "attn_implementation \"{}\"", options.attn_implementation)
        .with_fix("Use eager, sdpa or flash_attention_2.");
  }
  NIBBLE_RETURN_IF_ERROR(kv_cache_type_of(options));
  return check_backend(options.backend);
}

Expected<std::optional<DType>> float_dtype(const std::string& name) {
  if (name == "auto") return std::optional<DType>();
  const auto dtype = dtype_from_torch_name(name);
  if (dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16) return dtype;
  return fail(ErrorCode::kInvalidArgument, "dtype \"{}\"", name)
      .with_fix("Use auto, float32, float16 or bfloat16.");
}

// Refuses before anything is read what will not fit. Weights only: the cache comes on top.
Status check_memory(const FromPretrainedOptions& options, const Checkpoint& checkpoint) {
  const auto limit = options.max_memory.find("cpu");
  if (limit == options.max_memory.end()) return {};
  NIBBLE_TRY(const size_t bytes, at("max_memory", parse_bytes(limit->second)));
  if (checkpoint.file_bytes() > bytes) {
    return fail(ErrorCode::kOutOfMemory, "the weights need {}, but max_memory is {}",
                human_bytes(checkpoint.file_bytes()), limit->second)
        .with_fix("Raise max_memory or take a smaller or more strongly quantized model.");
  }
  return {};
}

void log_origins(const ResolvedQuantization& quantization) {
  for (const ConfigOrigin& origin : quantization.origins) {
    log_verbose("{} = {} ({})", origin.key, origin.value, origin.origin);
  }
}

Expected<GenerationConfig> read_generation_config(const ModelFiles& files, const PretrainedConfig& config) {
  GenerationConfig generation;
  NIBBLE_TRY(const std::optional<std::string> text, files.read("generation_config.json"));
  if (text) {
    NIBBLE_TRY(const Json json, at_file("generation_config.json", parse_json(*text)));
    NIBBLE_TRY(generation, at_file("generation_config.json", GenerationConfig::from_json(json)));
  }
  if (generation.bos_token_id.empty()) generation.bos_token_id = config.bos_token_id;
  if (generation.eos_token_id.empty()) generation.eos_token_id = config.eos_token_id;
  if (!generation.pad_token_id) generation.pad_token_id = config.pad_token_id;
  return generation;
}

// The modules that are quantized while loading: all linears but those that the user leaves out.
std::set<std::string> modules_to_quantize(const BitsAndBytesConfig& config,
                                          const std::vector<ModuleSlot>& slots) {
  std::set<std::string> modules = linear_modules(slots);
  if (!config.llm_int8_skip_modules) return modules;
  // A list replaces the default one, which holds the head only (spec of BitsAndBytesConfig): a list
  // without "lm_head" quantizes the head too.
  for (const ModuleSlot& slot : slots) {
    if (slot.role == ModuleRole::kHead) modules.insert(slot.name);
  }
  const auto skipped = [&](const std::string& module) {
    return std::any_of(
        config.llm_int8_skip_modules->begin(), config.llm_int8_skip_modules->end(),
        [&](const std::string& key) { return module.starts_with(key) || module.ends_with(key); });
  };
  std::erase_if(modules, skipped);
  return modules;
}

Expected<std::unique_ptr<CausalLM>> load_pretrained(ModelFiles files, const FromPretrainedOptions& options,
                                                    ThreadPool& pool);

// Small files of a folder that is about to go.
Status keep_texts(ModelFiles& files) {
  for (const std::string& name : files.list()) {
    if (!name.ends_with(".json") && !name.ends_with(".jinja") && !name.ends_with(".txt")) continue;
    NIBBLE_TRY(files.texts[name], files.read_required(name));
  }
  return {};
}

// By way of a folder: what is loaded is what save_pretrained() will write.
Expected<std::unique_ptr<CausalLM>> quantize_with_calibration(const ModelFiles& files,
                                                              const FromPretrainedOptions& options,
                                                              ThreadPool& pool) {
  NIBBLE_TRY(const TemporaryFolder folder, TemporaryFolder::create());
  NIBBLE_RETURN_IF_ERROR(options.quantizer(files, *options.quantization_config, folder.path(), pool));
  NIBBLE_TRY(ModelFiles written, find_model(folder.path().string()));
  written.name = files.name;
  NIBBLE_RETURN_IF_ERROR(keep_texts(written));
  FromPretrainedOptions loading = options;
  loading.quantization_config.reset();
  return load_pretrained(std::move(written), loading, pool);
}

Status load_linears(const BlockModules& modules, WeightLoader& loader, DecoderBlock& block) {
  std::vector<LinearRequest> requests;
  const auto linear = [&](const std::string& module, std::unique_ptr<Linear>& target) {
    if (!module.empty()) requests.push_back({module, &target, activation_bits(modules, module)});
  };
  linear(modules.q, block.q);
  linear(modules.k, block.k);
  linear(modules.v, block.v);
  linear(modules.qkv, block.qkv);
  linear(modules.q_a, block.q_a);
  linear(modules.kv_a, block.kv_a);
  linear(modules.q_b, block.q_b);
  linear(modules.kv_b, block.kv_b);
  linear(modules.o, block.o);
  linear(modules.router, block.router);
  linear(modules.shared_gate, block.shared_gate);
  block.mlps.resize(modules.mlps.size());
  for (size_t i = 0; i < block.mlps.size(); ++i) {
    linear(modules.mlps[i].gate, block.mlps[i].gate);
    linear(modules.mlps[i].up, block.mlps[i].up);
    linear(modules.mlps[i].gate_up, block.mlps[i].gate_up);
    linear(modules.mlps[i].down, block.mlps[i].down);
  }
  NIBBLE_RETURN_IF_ERROR(loader.linears(requests));
  for (size_t i = 0; i < block.mlps.size(); ++i) {
    NIBBLE_TRY(block.mlps[i].activation_scales, loader.input_scales(modules.mlps[i].down));
  }
  return {};
}

Expected<DecoderWeights> load_weights(const DecoderSpec& spec, const PretrainedConfig& config,
                                      bool prefix_missing, WeightLoader& loader) {
  NIBBLE_TRY(DecoderWeights weights, load_frame(spec, config, prefix_missing, loader));
  // Before the blocks: packing it takes a copy for a while, which then adds nothing to the peak.
  const std::string head = name_in_file(spec, spec.names.head, prefix_missing);
  const std::string embedding = name_in_file(spec, spec.names.embed, prefix_missing);
  NIBBLE_TRY(weights.head, loader.head(head, config.tie_word_embeddings ? embedding : head));
  for (size_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    DecoderBlock& block = weights.blocks.emplace_back();
    const BlockModules modules = block_modules(spec, layer, prefix_missing);
    NIBBLE_RETURN_IF_ERROR(load_linears(modules, loader, block));
    NIBBLE_RETURN_IF_ERROR(load_block_norms(spec, config, layer, modules, loader, block));
  }
  return weights;
}

Expected<std::unique_ptr<CausalLM>> load_pretrained(ModelFiles files, const FromPretrainedOptions& options,
                                                    ThreadPool& pool) {
  NIBBLE_TRY(const std::optional<DType> dtype, float_dtype(options.dtype));

  DecoderOrigin origin;
  origin.files = std::move(files);
  NIBBLE_TRY(const std::string config_text, origin.files.read_required("config.json"));
  NIBBLE_TRY(const Json config_json, at_file("config.json", parse_json(config_text)));
  NIBBLE_TRY(PretrainedConfig config, at_file("config.json", PretrainedConfig::from_json(config_json)));
  NIBBLE_TRY(DecoderSpec spec, make_decoder_spec(config));
  NIBBLE_TRY(origin.generation, read_generation_config(origin.files, config));
  NIBBLE_TRY(const std::optional<Json> quantize_config, read_quantize_config(origin.files));
  NIBBLE_TRY(ResolvedQuantization quantization,
             resolve_quantization(config_json, quantize_config, options.quantization_config));
  log_origins(quantization);
  origin.quantization = quantization.config;
  origin.pre_quantized = quantization.pre_quantized;

  NIBBLE_TRY(origin.checkpoint, open_checkpoint(origin.files));
  NIBBLE_RETURN_IF_ERROR(check_memory(options, *origin.checkpoint));
  const bool prefix_missing = prefix_is_missing(*origin.checkpoint, spec);
  origin.checkpoint = transpose_linears(origin.checkpoint, spec, prefix_missing);
  const std::vector<ModuleSlot> slots = module_slots(spec, config, prefix_missing);

  std::vector<std::string> stored = quantized_modules(*origin.checkpoint);
  const bool on_the_fly = quantization.config && !quantization.pre_quantized;
  if (on_the_fly) {
    const auto* const bnb = std::get_if<BitsAndBytesConfig>(&*quantization.config);
    if (bnb == nullptr) {
      if (options.quantizer) return quantize_with_calibration(origin.files, options, pool);
      return fail(ErrorCode::kUnsupported, "{} needs calibration data, and no quantizer was given",
                  quant_method(*quantization.config))
          .with_fix(
              "Set quantizer to calibrate_while_loading, load with a BitsAndBytesConfig (nf4, fp4, int8), or "
              "take a checkpoint that is quantized.");
    }
    const std::set<std::string> modules = modules_to_quantize(*bnb, slots);
    stored.assign(modules.begin(), modules.end());
    // Missing tensors are reported for the file as it is, before its view as a quantized one.
    NIBBLE_RETURN_IF_ERROR(at(origin.files.name, check_slots(*origin.checkpoint, slots, spec,
                                                             {.tied_head = config.tie_word_embeddings})));
    origin.checkpoint = quantize_on_the_fly(origin.checkpoint, *bnb, modules, pool);
  } else if (!stored.empty() && !quantization.config) {
    return fail(ErrorCode::kDataLoss, "{} is stored as codes, but config.json has no quantization_config",
                stored.front())
        .at(origin.files.name)
        .with_fix("Add the model's quantize_config.json, or fetch config.json again.");
  }
  const std::set<std::string> quantized(stored.begin(), stored.end());
  if (config.tie_word_embeddings && quantized.contains(std::string(spec.names.head))) {
    return fail(ErrorCode::kUnsupported,
                "{} is quantized, but tie_word_embeddings says that it is the embedding", spec.names.head)
        .at(origin.files.name)
        .with_fix("Set tie_word_embeddings to false in config.json if the model has a head of its own.");
  }
  NIBBLE_RETURN_IF_ERROR(
      at(origin.files.name, check_slots(*origin.checkpoint, slots, spec,
                                        {.quantized = quantized, .tied_head = config.tie_word_embeddings})));

  WeightLoader loader(origin.checkpoint, slots, quantized, origin.quantization,
                      {.linear = {.compute = options.compute, .backend = options.backend},
                       .dtype = dtype,
                       .norm_adds_one = spec.names.norm_adds_one,
                       .decode_in_parallel = !on_the_fly,
                       .show_progress = options.show_progress},
                      pool);
  NIBBLE_TRY(DecoderWeights weights,
             at(origin.files.name, load_weights(spec, config, prefix_missing, loader)));
  origin.bytes = loader.bytes();
  origin.num_parameters = loader.num_parameters();
  NIBBLE_TRY(const KvCacheType kv_cache_type, kv_cache_type_of(options));
  const bool eager = options.attn_implementation == "eager";
  auto decoder = std::make_unique<Decoder>(std::move(spec), std::move(config), std::move(weights),
                                           std::move(origin), options.compute, eager, kv_cache_type);
  log_verbose("backend {}: {}; KV cache {}", options.backend, decoder->kernels(),
              kv_cache_type_name(kv_cache_type));
  return decoder;
}

}  // namespace

Expected<std::unique_ptr<CausalLM>> AutoModelForCausalLM::from_pretrained(
    std::string_view model, const FromPretrainedOptions& options, ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(check_options(options));
  NIBBLE_TRY(ModelFiles files, find_model(model, options.revision));
  return load_pretrained(std::move(files), options, pool);
}

}  // namespace nibble
