#include "nibble/models/inspect_files.h"

#include <algorithm>

#include "nibble/config/file_error.h"
#include "nibble/models/architecture.h"
#include "nibble/models/module_slots.h"
#include "nibble/models/transposed_checkpoint.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

bool is_known(const std::string& model_type) {
  const auto rows = architectures();
  return std::any_of(rows.begin(), rows.end(),
                     [&](const Architecture& row) { return row.model_type == model_type; });
}

// The shape of a module stored as codes, against the one that the architecture gives it.
Status check_shape(const Checkpoint& checkpoint, const ModuleSlot& slot,
                   const QuantizationConfig& quantization) {
  NIBBLE_TRY(const ModuleSummary found, summarize_module(checkpoint, slot.name, quantization));
  const Shape shape = {found.out_features, found.in_features};
  if (shape == slot.shape) return {};
  return fail(ErrorCode::kDataLoss, "its tensors hold a weight {}, but config.json says {}",
              shape_name(shape), shape_name(slot.shape))
      .at(slot.name)
      .with_fix("The file belongs to another model, or is damaged: fetch it again.");
}

}  // namespace

Expected<InspectedFiles> open_inspected(const ModelFiles& files) {
  InspectedFiles opened;
  NIBBLE_TRY(const std::string text, files.read_required("config.json"));
  NIBBLE_TRY(opened.json, at_file("config.json", parse_json(text)));
  const Json& json = opened.json;
  if (!json.is_object()) {
    return fail(ErrorCode::kDataLoss, "{}, but a configuration is an object", json_type_name(json))
        .at(fmt::format("{}: config.json", files.name))
        .with_fix("Fetch the file again.");
  }
  if (json.contains("model_type") && json["model_type"].is_string()) {
    opened.model_type = json["model_type"].get<std::string>();
  }
  opened.supported = is_known(opened.model_type);
  auto config = at_file("config.json", PretrainedConfig::from_json(json));
  if (opened.supported && !config) return Failure(std::move(config).error());
  if (config) opened.config = std::move(*config);

  NIBBLE_TRY(const std::optional<Json> old_config, read_quantize_config(files));
  NIBBLE_TRY(opened.quantization, resolve_quantization(json, old_config, std::nullopt));
  NIBBLE_TRY(opened.checkpoint, open_checkpoint(files));
  opened.quantized_modules = quantized_modules(*opened.checkpoint);
  if (!opened.quantized_modules.empty() && !opened.quantization.config) {
    return fail(ErrorCode::kDataLoss, "{} is stored as codes, but config.json has no quantization_config",
                opened.quantized_modules.front())
        .at(files.name)
        .with_fix("Add the model's quantize_config.json, or fetch config.json again.");
  }
  return opened;
}

Status check_tensors(const InspectedFiles& files) {
  if (!files.supported) return {};
  const Checkpoint& checkpoint = *files.checkpoint;
  NIBBLE_TRY(const DecoderSpec spec, make_decoder_spec(*files.config));
  const bool prefix_missing = prefix_is_missing(checkpoint, spec);
  const auto slots = module_slots(spec, *files.config, prefix_missing);
  SlotCheckOptions options;
  options.quantized = {files.quantized_modules.begin(), files.quantized_modules.end()};
  options.tied_head = files.config->tie_word_embeddings;
  NIBBLE_RETURN_IF_ERROR(
      check_slots(*transpose_linears(files.checkpoint, spec, prefix_missing), slots, spec, options));
  for (const ModuleSlot& slot : slots) {
    if (files.quantization.config && options.quantized.count(slot.name) > 0) {
      NIBBLE_RETURN_IF_ERROR(check_shape(checkpoint, slot, *files.quantization.config));
    }
  }
  return {};
}

}  // namespace nibble
