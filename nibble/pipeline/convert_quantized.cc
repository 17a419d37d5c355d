#include "nibble/pipeline/convert_quantized.h"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>

#include "nibble/base/atomic_file.h"
#include "nibble/base/cancel.h"
#include "nibble/base/log.h"
#include "nibble/base/progress.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/convert.h"
#include "nibble/models/transposed_checkpoint.h"
#include "nibble/pipeline/convert_plan.h"
#include "nibble/pipeline/convert_proof.h"
#include "nibble/pipeline/run.h"
#include "nibble/quantization/formats/formats.h"
#include "nibble/quantization/formats/pack_quantized.h"
#include "nibble/quantizers/round_to_nearest.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

using Tensors = std::map<std::string, Tensor>;

// What describes the codes of the model that was read.
constexpr std::array<std::string_view, 4> kOldDescriptions = {"quantize_config.json", "quant_config.json",
                                                              "quant_log.csv", kManifestFile};

// Encodes modules one after the other; a module's tensors are written one by one, so the last is kept.
class ModuleEncoder {
 public:
  ModuleEncoder(const ModelSource& source, const ConversionPlan& plan, ThreadPool& pool)
      : source_(source), plan_(plan), pool_(pool) {}

  // Type and shape of a module's tensors by suffix.
  Expected<std::map<std::string, TensorInfo>> infos(const std::string& name) const {
    const ModulePlan& module = plan_.modules.at(name);
    const ModuleFacts& facts = module.facts;
    if (module.stored_as == StoredAs::kFloat) {
      NIBBLE_TRY(const DecodedModule decoded, decode(name));
      return std::map<std::string, TensorInfo>{
          {"weight", {decoded.weight.dtype, {facts.out_features, facts.in_features}}}};
    }
    if (plan_.layout.affine) {
      const size_t group_size = module.group_size == -1 ? 0 : static_cast<size_t>(module.group_size);
      return encoded_tensors(*plan_.layout.affine, module.bits, facts.out_features, facts.in_features,
                             group_size);
    }
    NIBBLE_TRY(const CompressedTensorsGroup* const group, find_group(packed_config(), name));
    const bool anew = module.stored_as == StoredAs::kRequantized;
    return pack_quantized_tensors(*group, facts.out_features, facts.in_features,
                                  anew ? DType::kF16 : facts.rounding);
  }

  Expected<Tensor> tensor(const std::string& name, const std::string& suffix) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    if (name != last_) {
      NIBBLE_TRY(tensors_, at(name, encode(name)));
      last_ = name;
    }
    return tensors_.at(suffix);
  }

 private:
  const CompressedTensorsConfig& packed_config() const {
    return std::get<CompressedTensorsConfig>(plan_.config);
  }

  Expected<DecodedModule> decode(const std::string& name) const {
    const ModuleFacts& facts = plan_.modules.at(name).facts;
    return decode_module(*source_.checkpoint, name, *source_.quantization,
                         LinearShape{facts.out_features, facts.in_features});
  }

  Expected<QuantizedWeight> requantized(const QuantizedWeight& weight, const ModulePlan& module) const {
    std::vector<float> values(weight.out_features * weight.in_features);
    dequantize_rows(weight, 0, weight.out_features, values.data());
    GptqSettings settings;
    settings.bits = module.bits;
    settings.group_size = module.group_size == -1 ? 0 : static_cast<size_t>(module.group_size);
    settings.sym = module.sym;
    settings.act_group_aware = false;
    settings.zero_may_be_0 = plan_.layout.affine != AffineLayout::kGptq;
    NIBBLE_TRY(SolvedWeight solved,
               round_to_nearest({values.data(), weight.out_features, weight.in_features}, settings, pool_));
    return std::move(solved.weight);
  }

  Expected<Tensors> encode(const std::string& name) const {
    const ModulePlan& module = plan_.modules.at(name);
    NIBBLE_TRY(DecodedModule decoded, decode(name));
    if (module.stored_as == StoredAs::kFloat) {
      NIBBLE_TRY(Tensor weight, dequantize(decoded.weight, std::nullopt));
      return Tensors{{"weight", std::move(weight)}};
    }
    QuantizedWeight weight;
    if (module.stored_as == StoredAs::kRequantized) {
      NIBBLE_TRY(weight, requantized(decoded.weight, module));
    } else {
      weight = with_zero_points(std::move(decoded.weight));
    }
    if (plan_.layout.affine) return encode_affine(weight, *plan_.layout.affine);
    NIBBLE_TRY(const CompressedTensorsGroup* const group, find_group(packed_config(), name));
    return encode_pack_quantized(weight, *group);
  }

  const ModelSource& source_;
  const ConversionPlan& plan_;
  ThreadPool& pool_;
  std::string last_;
  Tensors tensors_;
};

// Everything that the result consists of, by name.
Expected<std::vector<TensorSource>> result_tensors(const ModelSource& source, const ConversionPlan& plan,
                                                   const std::shared_ptr<ModuleEncoder>& encoder,
                                                   const std::function<void()>& written) {
  std::map<std::string, TensorSource> tensors;
  std::set<std::string> consumed;
  for (const auto& [module, ignored] : plan.modules) {
    for (std::string& name : tensors_of_module(*source.checkpoint, module)) consumed.insert(std::move(name));
    NIBBLE_TRY(const auto infos, at(module, encoder->infos(module)));
    for (const auto& [suffix, info] : infos) {
      const std::string name = module + "." + suffix;
      const auto load = [encoder, module = module, suffix = suffix] {
        return encoder->tensor(module, suffix);
      };
      tensors[name] = {name, info, load, {}};
    }
  }
  const auto stored = transpose_linears(source.checkpoint, source.spec, source.prefix_missing);
  for (const auto& [name, info] : stored->tensors()) {
    if (consumed.contains(name)) continue;
    tensors[name] = {
        name, info, [checkpoint = stored, tensor = name] { return checkpoint->tensor(tensor); }, {}};
  }
  std::vector<TensorSource> sources;
  for (auto& [name, tensor] : tensors) {
    tensor.written = [checkpoint = source.checkpoint, tensor_name = name, written] {
      if (checkpoint->find(tensor_name) != nullptr) checkpoint->drop(tensor_name);
      written();
    };
    sources.push_back(std::move(tensor));
  }
  return sources;
}

Status write_tensors(const ModelSource& source, const ConversionPlan& plan, const fs::path& folder,
                     const ConvertOptions& options, ConversionResult& result, ThreadPool& pool) {
  std::optional<Progress> progress;
  const auto encoder = std::make_shared<ModuleEncoder>(source, plan, pool);
  NIBBLE_TRY(const std::vector<TensorSource> tensors, result_tensors(source, plan, encoder, [&progress] {
               if (progress) progress->advance();
             }));
  if (options.show_progress) progress.emplace("converting", tensors.size(), "tensors");
  result.tensors = tensors.size();
  for (const TensorSource& tensor : tensors) result.bytes += num_bytes(tensor.info).value_or(0);
  CheckpointWriterOptions writer;
  writer.max_shard_size = options.max_shard_size;
  writer.metadata = source.checkpoint->metadata();
  writer.metadata["format"] = "pt";
  writer.metadata["converted_by"] = "nibble " NIBBLE_VERSION;
  writer.metadata["converted_from"] = plan.from;
  return write_checkpoint(folder, tensors, writer);
}

Status check_exact(const ModelSource& source, const ConversionPlan& plan) {
  const size_t exact = plan.count(StoredAs::kExact);
  if (exact == plan.modules.size()) return {};
  const auto first = std::find_if(plan.modules.begin(), plan.modules.end(), [](const auto& module) {
    return module.second.stored_as != StoredAs::kExact;
  });
  const std::string other = first->second.fix.empty() ? std::string() : " " + first->second.fix;
  return fail(ErrorCode::kUnsupported, "{} of {} modules do not go into {} as they are: {}",
              plan.modules.size() - exact, plan.modules.size(), plan.layout.name(), first->second.why)
      .at(fmt::format("{}: {}", source.files.name, first->first))
      .with_fix(fmt::format("--requantize rounds them anew and measures what that costs.{}", other));
}

void warn_of_readers(const ConversionPlan& plan) {
  const auto* const gptq = std::get_if<GPTQConfig>(&plan.config);
  const bool of_gptqmodel =
      gptq != nullptr && !gptq->quantizer.empty() && gptq->quantizer.front().starts_with("gptqmodel");
  if (gptq != nullptr && gptq->checkpoint_format == "gptq" && !gptq->sym && !of_gptqmodel) {
    warn(
        "Transformers and GPTQModel read asymmetric files in the layout gptq only if GPTQModel wrote them; "
        "gptq_v2 has no such limit");
  }
  const auto* const packed = std::get_if<CompressedTensorsConfig>(&plan.config);
  if (packed == nullptr) return;
  for (const CompressedTensorsGroup& group : packed->groups) {
    if (group.actorder != "group") continue;
    warn(
        "compressed-tensors 0.20 and Transformers with it refuse actorder \"group\" (desc_act); vLLM, Nibble "
        "and older releases read it");
    return;
  }
}

Status write_descriptions(const ModelSource& source, const ConversionPlan& plan, const fs::path& folder) {
  NIBBLE_RETURN_IF_ERROR(copy_model_texts(source.files, folder));
  for (const std::string_view name : kOldDescriptions) {
    NIBBLE_RETURN_IF_ERROR(remove_file(folder / name));
  }
  Json config = source.config.json;
  config.erase("_pre_quantization_dtype");
  config["quantization_config"] = to_json(plan.config);
  if (std::holds_alternative<GPTQConfig>(plan.config)) {
    // GPTQModel and older readers look here; Transformers into config.json.
    NIBBLE_RETURN_IF_ERROR(
        write_file(folder / "quantize_config.json", dump_json(config["quantization_config"]) + "\n"));
  }
  // Last: a folder without it is no model to anybody.
  return write_file(folder / "config.json", dump_json(config) + "\n");
}

ModelFiles files_of(const fs::path& folder) {
  ModelFiles files;
  files.name = folder.string();
  files.folder = folder;
  return files;
}

std::vector<ConvertedModule> list_modules(const ConversionPlan& plan) {
  std::vector<ConvertedModule> modules;
  for (const auto& [name, module] : plan.modules) modules.push_back({name, module.stored_as, module.why});
  return modules;
}

}  // namespace

size_t ConversionResult::count(StoredAs stored_as) const {
  return static_cast<size_t>(std::count_if(modules.begin(), modules.end(), [stored_as](const auto& module) {
    return module.stored_as == stored_as;
  }));
}

Expected<std::vector<ConvertedModule>> preview_conversion(const ModelFiles& files, std::string_view layout) {
  NIBBLE_TRY(const TargetLayout target, target_layout_from_name(layout));
  NIBBLE_TRY(const ModelSource source, ModelSource::open(files));
  NIBBLE_TRY(const ConversionPlan plan, plan_conversion(source, target));
  return list_modules(plan);
}

Expected<ConversionResult> convert_quantized(const ModelFiles& files, const fs::path& folder,
                                             const ConvertOptions& options, ThreadPool& pool) {
  NIBBLE_TRY(const TargetLayout layout, target_layout_from_name(options.layout));
  NIBBLE_TRY(const ModelSource source, ModelSource::open(files));
  NIBBLE_TRY(const ConversionPlan plan, plan_conversion(source, layout, options.show_progress));
  if (!options.requantize) NIBBLE_RETURN_IF_ERROR(check_exact(source, plan));
  warn_of_readers(plan);

  ConversionResult result;
  result.from = plan.from;
  result.modules = list_modules(plan);
  NIBBLE_RETURN_IF_ERROR(create_folder(folder));
  NIBBLE_RETURN_IF_ERROR(write_tensors(source, plan, folder, options, result, pool));
  NIBBLE_TRY(const auto written, open_checkpoint(files_of(folder)));
  NIBBLE_TRY(const Proof proof, prove_conversion(source, *written, plan, pool, options.show_progress));
  result.proved = proof.modules;
  result.copied = proof.tensors;
  NIBBLE_RETURN_IF_ERROR(write_descriptions(source, plan, folder));
  if (options.check && proof.modules < plan.modules.size()) {
    NIBBLE_TRY(result.check, check_model_folder(source, folder, {}, pool));
  }
  return result;
}

}  // namespace nibble
