#include "nibble/models/model_source.h"

#include <algorithm>
#include <cmath>
#include <system_error>

#include "nibble/base/check.h"
#include "nibble/config/file_error.h"
#include "nibble/models/transposed_checkpoint.h"
#include "nibble/quantization/float_blocks.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

Status check_finite(const std::vector<float>& values, const std::string& tensor) {
  if (std::isfinite(largest_magnitude(values))) return {};
  const auto bad = std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  return fail(ErrorCode::kDataLoss, "element {} is {}", bad - values.begin(), *bad)
      .at(tensor)
      .with_fix(
          "A weight that is not finite cannot be quantized: fetch the file again, or repair the model.");
}

size_t tokenizer_bytes_of(const ModelFiles& files) {
  const std::string name = "tokenizer.json";
  if (const auto made = files.texts.find(name); made != files.texts.end()) return made->second.size();
  if (files.folder.empty()) return 0;
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(files.folder / name, error);
  return error ? 0 : static_cast<size_t>(bytes);
}

// As to_floats(), faster for the types that weights have.
Expected<std::vector<float>> to_float_vector(const Tensor& tensor) {
  if (tensor.dtype != DType::kF16 && tensor.dtype != DType::kBF16) return to_floats(tensor);
  std::vector<float> values(tensor.size());
  load_floats(tensor, 0, values.size(), values.data());
  return values;
}

}  // namespace

Expected<ModelSource> ModelSource::open(const ModelFiles& files) {
  // The configuration first: whoever names a wrong folder should hear of config.json.
  NIBBLE_RETURN_IF_ERROR(files.read_required("config.json"));
  NIBBLE_TRY(auto checkpoint, open_checkpoint(files));
  return open(files, std::move(checkpoint));
}

Expected<ModelSource> ModelSource::open(const ModelFiles& files,
                                        std::shared_ptr<const Checkpoint> checkpoint) {
  ModelSource source;
  source.files = files;
  source.checkpoint = std::move(checkpoint);
  source.tokenizer_bytes = tokenizer_bytes_of(files);
  NIBBLE_TRY(const std::string text, files.read_required("config.json"));
  NIBBLE_TRY(const Json json, at_file("config.json", parse_json(text)));
  NIBBLE_TRY(source.config, at_file("config.json", PretrainedConfig::from_json(json)));
  NIBBLE_TRY(source.spec, make_decoder_spec(source.config));
  NIBBLE_TRY(const std::optional<Json> quantize_config, read_quantize_config(files));
  NIBBLE_TRY(const ResolvedQuantization resolved, resolve_quantization(json, quantize_config, std::nullopt));
  source.quantization = resolved.config;
  for (std::string& module : quantized_modules(*source.checkpoint))
    source.quantized.insert(std::move(module));
  if (!source.quantized.empty() && !source.quantization) {
    return fail(ErrorCode::kDataLoss, "{} is stored as codes, but config.json has no quantization_config",
                *source.quantized.begin())
        .at(files.name);
  }
  source.prefix_missing = prefix_is_missing(*source.checkpoint, source.spec);
  source.checkpoint = transpose_linears(source.checkpoint, source.spec, source.prefix_missing);
  source.slots = module_slots(source.spec, source.config, source.prefix_missing);
  const SlotCheckOptions options = {.quantized = source.quantized,
                                    .tied_head = source.config.tie_word_embeddings};
  NIBBLE_RETURN_IF_ERROR(at(files.name, check_slots(*source.checkpoint, source.slots, source.spec, options)));
  return source;
}

const ModuleSlot& ModelSource::slot(std::string_view module) const {
  const auto found =
      std::find_if(slots.begin(), slots.end(), [&](const ModuleSlot& s) { return s.name == module; });
  NIBBLE_CHECK(found != slots.end());
  return *found;
}

Expected<std::vector<float>> ModelSource::weight(const std::string& module) const {
  std::vector<float> values;
  if (quantized.contains(module)) {
    const Shape& shape = slot(module).shape;
    NIBBLE_TRY(const DecodedModule decoded,
               decode_module(*checkpoint, module, *quantization, LinearShape{shape[0], shape[1]}));
    values.resize(shape[0] * shape[1]);
    dequantize_rows(decoded.weight, 0, shape[0], values.data());
    for (const std::string& name : decoded.tensors) checkpoint->drop(name);
  } else {
    const std::string name = module + ".weight";
    NIBBLE_TRY(const Tensor tensor, checkpoint->tensor(name));
    NIBBLE_TRY(values, at(name, to_float_vector(tensor)));
    checkpoint->drop(name);
  }
  NIBBLE_RETURN_IF_ERROR(check_finite(values, module + ".weight"));
  return values;
}

Expected<std::vector<float>> ModelSource::bias(const std::string& module) const {
  const std::string name = module + ".bias";
  if (checkpoint->find(name) == nullptr) return std::vector<float>();
  NIBBLE_TRY(const Tensor tensor, checkpoint->tensor(name));
  NIBBLE_TRY(std::vector<float> values, at(name, to_floats(tensor)));
  NIBBLE_RETURN_IF_ERROR(check_finite(values, name));
  return values;
}

}  // namespace nibble
