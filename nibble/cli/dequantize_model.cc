#include "nibble/cli/dequantize_model.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "nibble/base/atomic_file.h"
#include "nibble/base/cancel.h"
#include "nibble/base/json.h"
#include "nibble/base/log.h"
#include "nibble/base/progress.h"
#include "nibble/checkpoint/checkpoint.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/convert.h"
#include "nibble/config/pretrained_config.h"
#include "nibble/config/quantization_config.h"
#include "nibble/models/architecture.h"
#include "nibble/models/input_scales.h"
#include "nibble/pipeline/convert_proof.h"
#include "nibble/quantization/dequantized_checkpoint.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

// The configuration of the float model. An old key torch_dtype stays torch_dtype.
Json float_config(Json config, DType dtype, bool head_was_quantized) {
  config.erase("quantization_config");
  config.erase("_pre_quantization_dtype");
  config[config.contains("torch_dtype") ? "torch_dtype" : "dtype"] = torch_dtype_name(dtype);
  // A head that was quantized on its own is no longer the embedding.
  if (head_was_quantized) config["tie_word_embeddings"] = false;
  return config;
}

// What described the codes in older files.
Status remove_quantize_configs(const std::filesystem::path& folder) {
  for (const char* const name : kQuantizeConfigFiles) {
    NIBBLE_RETURN_IF_ERROR(remove_file(folder / name));
  }
  return {};
}

// Scales of activations go into the weights behind them. Only where the file has tensors that could be such
// scales must Nibble know the architecture.
Status absorb_scales(const std::shared_ptr<const Checkpoint>& checkpoint, const Json& config,
                     const QuantizationConfig& quantization, std::map<std::string, TensorSource>& sources) {
  const bool any = std::any_of(sources.begin(), sources.end(),
                               [](const auto& source) { return source.first.ends_with(".scales"); });
  if (!any) return {};
  NIBBLE_TRY(const PretrainedConfig parsed, at("config.json", PretrainedConfig::from_json(config)));
  NIBBLE_TRY(const DecoderSpec spec, make_decoder_spec(parsed));
  const std::vector<ModuleSlot> slots = module_slots(spec, parsed, prefix_is_missing(*checkpoint, spec));
  NIBBLE_TRY(auto floats, dequantize_on_the_fly(checkpoint, quantization));
  const auto absorbed = absorb_input_scales(std::move(floats), slots);
  for (const auto& [module, scales] : input_scales_of(*checkpoint, slots)) {
    sources.erase(scales);
    TensorSource& weight = sources.at(module + ".weight");
    weight.load = [absorbed, name = weight.name, dtype = weight.info.dtype]() -> Expected<Tensor> {
      NIBBLE_TRY(const Tensor divided, absorbed->tensor(name));
      return convert_tensor(divided, dtype);
    };
  }
  return {};
}

}  // namespace

Expected<DequantizedModel> dequantize_model(const ModelFiles& files, const std::filesystem::path& folder,
                                            std::optional<DType> dtype, size_t max_shard_size) {
  NIBBLE_TRY(const std::string config_text, files.read_required("config.json"));
  NIBBLE_TRY(const Json config, at("config.json", parse_json(config_text, {.allow_nan = true})));
  NIBBLE_TRY(const std::optional<Json> old_config, read_quantize_config(files));
  NIBBLE_TRY(const ResolvedQuantization resolved, resolve_quantization(config, old_config, std::nullopt));
  NIBBLE_TRY(const auto checkpoint, open_checkpoint(files));
  const std::vector<std::string> modules = quantized_modules(*checkpoint);
  if (!resolved.config || modules.empty()) {
    return fail(ErrorCode::kInvalidArgument, "nothing in this model is quantized")
        .at(files.name)
        .with_fix("Only AWQ, GPTQ and bitsandbytes checkpoints can be dequantized.");
  }
  const QuantizationConfig& quantization = *resolved.config;

  DequantizedModel out;
  out.modules = modules.size();
  std::optional<Progress> progress;  // ends before the comparison, which has its own
  progress.emplace("dequantizing", modules.size(), "modules");
  std::map<std::string, DType> dtype_of_format;  // found by decoding the first module of each
  std::set<std::string> consumed;
  std::map<std::string, TensorSource> sources;  // by name
  for (const std::string& module : modules) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    NIBBLE_TRY(const ModuleSummary summary, summarize_module(*checkpoint, module, quantization));
    for (std::string& name : tensors_of_module(*checkpoint, module)) consumed.insert(std::move(name));
    if (!dtype && dtype_of_format.count(summary.format) == 0) {
      NIBBLE_TRY(const DecodedModule first, decode_module(*checkpoint, module, quantization, std::nullopt));
      dtype_of_format[summary.format] = first.weight.dtype;
    }
    const DType stored_as = dtype ? *dtype : dtype_of_format.at(summary.format);
    if (sources.empty()) out.dtype = stored_as;
    const std::string name = module + ".weight";
    const auto load = [&checkpoint, &quantization, &progress, module, stored_as,
                       dtype]() -> Expected<Tensor> {
      NIBBLE_RETURN_IF_ERROR(check_cancelled());
      NIBBLE_TRY(const DecodedModule decoded, decode_module(*checkpoint, module, quantization, std::nullopt));
      NIBBLE_TRY(Tensor tensor, at(module, dequantize(decoded.weight, dtype)));
      if (progress) progress->advance();
      // Modules of one format that were made from weights of different types.
      return convert_tensor(tensor, stored_as);
    };
    sources[name] = {name, {stored_as, {summary.out_features, summary.in_features}}, load};
  }
  for (const auto& [name, info] : checkpoint->tensors()) {
    if (consumed.count(name) > 0) continue;
    if (sources.count(name) > 0) {
      return fail(ErrorCode::kDataLoss, "the module is quantized and has a float weight as well").at(name);
    }
    const DType stored_as = dtype && is_float(info.dtype) ? *dtype : info.dtype;
    const auto load = [&checkpoint, tensor_name = name, stored_as]() -> Expected<Tensor> {
      NIBBLE_RETURN_IF_ERROR(check_cancelled());
      NIBBLE_TRY(Tensor tensor, checkpoint->tensor(tensor_name));
      if (tensor.dtype == stored_as) return tensor;
      return convert_tensor(tensor, stored_as);
    };
    sources[name] = {name, {stored_as, info.shape}, load};
  }

  NIBBLE_RETURN_IF_ERROR(absorb_scales(checkpoint, config, quantization, sources));
  std::vector<TensorSource> tensors;
  for (auto& [name, source] : sources) {
    out.bytes += num_bytes(source.info).value_or(0);
    tensors.push_back(std::move(source));
  }
  out.tensors = tensors.size();
  CheckpointWriterOptions options;
  options.max_shard_size = max_shard_size;
  NIBBLE_RETURN_IF_ERROR(write_checkpoint(folder, tensors, options));
  progress.reset();
  NIBBLE_RETURN_IF_ERROR(prove_tensors(tensors, folder));
  NIBBLE_RETURN_IF_ERROR(copy_model_texts(files, folder));
  NIBBLE_RETURN_IF_ERROR(remove_quantize_configs(folder));
  const bool head_was_quantized = std::find(modules.begin(), modules.end(), "lm_head") != modules.end();
  // Last: a folder without it is no model to anybody.
  const Json new_config = float_config(config, out.dtype, head_was_quantized);
  NIBBLE_RETURN_IF_ERROR(write_file(folder / "config.json", dump_json(new_config) + "\n"));
  return out;
}

}  // namespace nibble
