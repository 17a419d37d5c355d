#include "nibble/quantization/formats/gptq.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "nibble/base/log.h"

namespace nibble {
namespace {

const std::vector<std::string> kGptqSuffixes = {"qweight", "qzeros", "scales", "g_idx"};

// What the headers say, checked against each other, the config and the architecture.
struct GptqLayout {
  GptqParameters parameters;
  GptqPacking packing;
  size_t out_features = 0;
  size_t in_features = 0;
  size_t num_groups = 0;
  size_t group_size = 0;
  DType scale_dtype = DType::kF16;
};

template <class T>
Status override_value(const Json& overrides, const char* key, std::string_view module, T& value) {
  const auto found = overrides.find(key);
  if (found == overrides.end() || found->is_null()) return {};
  bool fits = false;
  if constexpr (std::is_same_v<T, bool>) {
    fits = found->is_boolean();
  } else {
    fits = found->is_number_integer() && found->template get<int64_t>() >= -1 &&
           found->template get<int64_t>() <= std::numeric_limits<int32_t>::max();
  }
  if (!fits) {
    return fail(ErrorCode::kInvalidArgument, "dynamic gives {} the {} {}", module, key, found->dump())
        .at("quantization_config");
  }
  value = found->template get<T>();
  return {};
}

std::string group_size_text(const GptqParameters& parameters) {
  return parameters.group_size == -1 ? std::string("-1 (one group)") : fmt::to_string(parameters.group_size);
}

// The number of inputs: what the architecture wants, else what g_idx covers, else what fits.
size_t inputs_of(const ModuleTensors& tensors, const GptqPacking& packing, size_t rows,
                 const std::optional<LinearShape>& shape) {
  if (shape) return shape->in_features;
  if (const TensorInfo* g_idx = tensors.find("g_idx"); g_idx != nullptr && g_idx->shape.size() == 1) {
    return g_idx->shape[0];
  }
  const auto bits = static_cast<size_t>(packing.bits);
  return packing.planar ? rows / bits * 32 : rows / bits * 32 + rows % bits * 32 / bits;
}

Status check_rows(const ModuleTensors& tensors, const GptqPacking& packing, const Shape& qweight,
                  size_t in_features, std::string_view source) {
  const auto rows = gptq_words(in_features, packing);
  if (rows && *rows == qweight[0] && in_features > 0) return {};
  std::string guess;
  if (in_features > 0 && qweight[0] * 32 % in_features == 0 && qweight[0] * 32 / in_features <= 8) {
    guess = fmt::format(" (that many rows would be {} bits)", qweight[0] * 32 / in_features);
  }
  return fail(ErrorCode::kDataLoss, "shape {} has {} rows, but {} inputs ({}) at {} bits take {}{}",
              shape_name(qweight), qweight[0], in_features, source, packing.bits,
              rows ? fmt::to_string(*rows) : std::string("more than there can be"), guess)
      .at(tensors.where("qweight"))
      .with_fix(kFetchBothAgain);
}

Expected<GptqLayout> read_layout(const ModuleTensors& tensors, const GPTQConfig& config,
                                 const std::optional<LinearShape>& shape) {
  GptqLayout layout;
  NIBBLE_TRY(layout.parameters, gptq_parameters(config, tensors.module()));
  layout.packing = {.bits = layout.parameters.bits, .planar = config.checkpoint_format == "gptq_p"};
  if (!is_valid(layout.packing)) {
    return fail(ErrorCode::kUnsupported, "{} bits with checkpoint_format \"{}\"", layout.parameters.bits,
                config.checkpoint_format)
        .at(tensors.module())
        .with_fix("\"gptq\" and \"gptq_v2\" hold 2, 3, 4 or 8 bits, \"gptq_p\" 2 to 8.");
  }

  NIBBLE_TRY(const TensorInfo qweight, tensors.require("qweight", {DType::kI32, DType::kU32}, 2));
  NIBBLE_TRY(const TensorInfo scales, tensors.require("scales", scale_dtypes(), 2));
  NIBBLE_TRY(const TensorInfo qzeros, tensors.require("qzeros", {DType::kI32, DType::kU32}, 2));
  layout.out_features = qweight.shape[1];
  layout.scale_dtype = scales.dtype;
  if (scales.shape[1] != layout.out_features && scales.shape[1] == qweight.shape[1] * 8) {
    return fail(ErrorCode::kDataLoss,
                "shape {} beside scales {} is the layout of AWQ, but quant_method is gptq",
                shape_name(qweight.shape), shape_name(scales.shape))
        .at(tensors.where("qweight"))
        .with_fix(kFetchBothAgain);
  }
  if (shape && shape->out_features != layout.out_features) {
    return fail(ErrorCode::kDataLoss, "shape {} holds {} outputs, but config.json asks for {}",
                shape_name(qweight.shape), layout.out_features, shape->out_features)
        .at(tensors.where("qweight"))
        .with_fix("The file belongs to another model: check the folder.");
  }
  layout.in_features = inputs_of(tensors, layout.packing, qweight.shape[0], shape);
  NIBBLE_RETURN_IF_ERROR(check_rows(tensors, layout.packing, qweight.shape, layout.in_features,
                                    shape                  ? "config.json"
                                    : tensors.has("g_idx") ? "g_idx"
                                                           : "from the rows"));
  if (layout.out_features == 0) {
    return fail(ErrorCode::kDataLoss, "shape {} is empty", shape_name(qweight.shape))
        .at(tensors.where("qweight"));
  }

  const int64_t group_size = layout.parameters.group_size;
  if (group_size != -1 && group_size <= 0) {
    return fail(ErrorCode::kInvalidArgument, "group_size is {}, but must be -1 or positive", group_size)
        .at(tensors.module());
  }
  layout.group_size =
      group_size == -1 ? layout.in_features : std::min(static_cast<size_t>(group_size), layout.in_features);
  layout.num_groups = ceil_div(layout.in_features, layout.group_size);
  // The config alone does not decide: rows of scales and g_idx could be read with another group
  // size, but a file that contradicts its config is refused by every other reader, too.
  NIBBLE_RETURN_IF_ERROR(tensors.require_shape(
      "scales", {layout.num_groups, layout.out_features},
      fmt::format("{} inputs with group_size {} (config.json) and {} outputs", layout.in_features,
                  group_size_text(layout.parameters), layout.out_features)));
  const size_t zero_words = gptq_words(layout.out_features, layout.packing).value_or(0);
  NIBBLE_RETURN_IF_ERROR(
      tensors.require_shape("qzeros", {layout.num_groups, zero_words},
                            fmt::format("{} groups and {} outputs at {} bits", layout.num_groups,
                                        layout.out_features, layout.packing.bits)));
  if (tensors.has("g_idx")) {
    NIBBLE_RETURN_IF_ERROR(tensors.require("g_idx", {DType::kI32, DType::kI64}, 1));
    NIBBLE_RETURN_IF_ERROR(
        tensors.require_shape("g_idx", {layout.in_features}, fmt::format("{} inputs", layout.in_features)));
  } else if (layout.parameters.desc_act && !layout.parameters.static_groups && layout.num_groups > 1) {
    return fail(ErrorCode::kDataLoss,
                "the tensor is missing, and desc_act true needs it to tell {} groups apart",
                layout.num_groups)
        .at(tensors.where("g_idx"))
        .with_fix("The checkpoint is incomplete: fetch it again.");
  }
  return layout;
}

// Whether all fields of qzeros are `value`; padding fields behind the last output do not count.
bool all_fields_are(const std::vector<uint32_t>& qzeros, const GptqLayout& layout, uint8_t value) {
  const size_t words = qzeros.size() / layout.num_groups;
  std::vector<uint8_t> fields(layout.out_features);
  for (size_t g = 0; g < layout.num_groups; ++g) {
    unpack_gptq_row(layout.packing, qzeros.data() + g * words, layout.out_features, fields.data());
    if (!std::all_of(fields.begin(), fields.end(), [value](uint8_t f) { return f == value; })) return false;
  }
  return true;
}

bool written_by_gptqmodel(const GPTQConfig& config) {
  return std::any_of(config.quantizer.begin(), config.quantizer.end(),
                     [](const std::string& writer) { return writer.starts_with("gptqmodel"); });
}

// AutoGPTQ subtracts 1 from a zero point of 0 without masking the result, so that every field above
// it in the word becomes ones. Two or more fields of ones at the top are its trace.
void warn_of_lost_zeros(const std::vector<uint32_t>& qzeros, const GptqPacking& packing,
                        const std::string& where) {
  const uint32_t top = ~uint32_t{0} << (32 - 2 * packing.bits);
  const auto lost =
      std::count_if(qzeros.begin(), qzeros.end(), [top](uint32_t word) { return (word & top) == top; });
  if (lost == 0) return;
  warn(
      "{}: in {} of {} words the upper zero points are all ones. AutoGPTQ writes that where a zero point is "
      "0, and loses those above it: the outputs they belong to are wrong in every program.",
      where, lost, qzeros.size());
}

// The config's word, unless the data of a symmetric file say the opposite.
GptqZeros zeros_convention(const std::vector<uint32_t>& qzeros, const ModuleTensors& tensors,
                           const GPTQConfig& config, const GptqLayout& layout) {
  if (layout.packing.planar) return GptqZeros::kTrue;
  bool minus_one = config.checkpoint_format != "gptq_v2";
  if (layout.parameters.sym) {
    const auto middle = static_cast<uint8_t>(1u << (layout.packing.bits - 1));
    const auto stored = static_cast<uint8_t>(minus_one ? middle - 1 : middle);
    const auto opposite = static_cast<uint8_t>(minus_one ? middle : middle - 1);
    if (all_fields_are(qzeros, layout, opposite)) {
      warn("config.json says checkpoint_format \"{}\", but all zero points are stored as {}: reading as {}.",
           config.checkpoint_format, opposite, minus_one ? "gptq_v2" : "gptq");
      minus_one = !minus_one;
    } else if (!all_fields_are(qzeros, layout, stored)) {
      warn(
          "config.json says sym true, but the zero points differ from each other: reading them as they are "
          "stored.");
    }
  }
  if (!minus_one) return GptqZeros::kTrue;
  if (layout.packing.bits == 3) return GptqZeros::kMinusOneField;
  if (written_by_gptqmodel(config)) return GptqZeros::kMinusOneWord;
  if (!layout.parameters.sym) warn_of_lost_zeros(qzeros, layout.packing, tensors.where("qzeros"));
  return GptqZeros::kMinusOneField;
}

// Group of each input, or nothing where it is i / group_size. What desc_act says does not matter.
Expected<std::vector<uint32_t>> read_g_idx(const ModuleTensors& tensors, const GptqLayout& layout) {
  std::vector<uint32_t> g_idx;
  if (!tensors.has("g_idx")) return g_idx;
  NIBBLE_TRY(const Tensor tensor, tensors.load("g_idx"));
  std::vector<int64_t> values;
  if (tensor.dtype == DType::kI64) {
    values = copy_elements<int64_t>(tensor);
  } else {
    for (const int32_t value : copy_elements<int32_t>(tensor)) values.push_back(value);
  }
  const auto num_groups = static_cast<int64_t>(layout.num_groups);
  g_idx.resize(values.size());
  bool natural = true;
  for (size_t i = 0; i < values.size(); ++i) {
    // Negative ones count from the end, as Python indexes.
    const int64_t group = values[i] < 0 ? values[i] + num_groups : values[i];
    if (group < 0 || group >= num_groups) {
      return fail(ErrorCode::kDataLoss, "element [{}] is {}, but there are {} groups", i, values[i],
                  num_groups)
          .at(tensors.where("g_idx"))
          .with_fix("The file is damaged: fetch it again.");
    }
    g_idx[i] = static_cast<uint32_t>(group);
    natural = natural && g_idx[i] == i / layout.group_size;
  }
  if (natural) g_idx.clear();
  return g_idx;
}

std::string format_name(const GptqPacking& packing, bool true_zeros) {
  return packing.planar ? "gptq_p" : true_zeros ? "gptq_v2" : "gptq";
}

}  // namespace

Expected<GptqParameters> gptq_parameters(const GPTQConfig& config, std::string_view module) {
  GptqParameters parameters{.bits = config.bits,
                            .group_size = config.group_size,
                            .sym = config.sym,
                            .desc_act = config.desc_act,
                            .static_groups = config.static_groups};
  NIBBLE_TRY(const DynamicRule* rule, find_dynamic_rule(config, module));
  // A "-:" rule says that the module was left alone; when its codes are there all the same, the
  // file decides and the general parameters hold.
  if (rule == nullptr || rule->skip || !rule->overrides.is_object()) return parameters;
  NIBBLE_RETURN_IF_ERROR(override_value(rule->overrides, "bits", module, parameters.bits));
  NIBBLE_RETURN_IF_ERROR(override_value(rule->overrides, "group_size", module, parameters.group_size));
  NIBBLE_RETURN_IF_ERROR(override_value(rule->overrides, "sym", module, parameters.sym));
  NIBBLE_RETURN_IF_ERROR(override_value(rule->overrides, "desc_act", module, parameters.desc_act));
  NIBBLE_RETURN_IF_ERROR(override_value(rule->overrides, "static_groups", module, parameters.static_groups));
  return parameters;
}

std::vector<float> gptq_zeros(std::vector<uint32_t> qzeros, size_t num_groups, size_t out_features,
                              const GptqPacking& packing, GptqZeros convention) {
  if (convention == GptqZeros::kMinusOneWord) {
    // A one in each field: 0x55555555, 0x11111111, 0x01010101.
    const uint32_t ones = ~uint32_t{0} / ((1u << packing.bits) - 1);
    for (uint32_t& word : qzeros) word += ones;
  }
  const uint32_t shift = convention == GptqZeros::kMinusOneField ? 1 : 0;
  const uint32_t maxq = (1u << packing.bits) - 1;
  const size_t words = num_groups == 0 ? 0 : qzeros.size() / num_groups;
  std::vector<uint8_t> fields(out_features);
  std::vector<float> zeros(num_groups * out_features);
  for (size_t g = 0; g < num_groups; ++g) {
    unpack_gptq_row(packing, qzeros.data() + g * words, out_features, fields.data());
    for (size_t o = 0; o < out_features; ++o) {
      zeros[g * out_features + o] = static_cast<float>((fields[o] + shift) & maxq);
    }
  }
  return zeros;
}

Expected<DecodedModule> decode_gptq(const ModuleTensors& tensors, const GPTQConfig& config,
                                    const std::optional<LinearShape>& shape, CodeStorage storage) {
  NIBBLE_TRY(const GptqLayout layout, read_layout(tensors, config, shape));
  DecodedModule decoded;
  QuantizedWeight& weight = decoded.weight;
  weight.formula = WeightFormula::kAffine;
  weight.out_features = layout.out_features;
  weight.in_features = layout.in_features;
  weight.bits = layout.packing.bits;
  weight.group_size = layout.group_size;
  weight.num_groups = layout.num_groups;
  weight.rounding = layout.scale_dtype;
  weight.dtype = layout.scale_dtype;
  NIBBLE_TRY(weight.g_idx, read_g_idx(tensors, layout));
  NIBBLE_TRY(weight.scales, tensors.load_finite("scales"));

  NIBBLE_TRY(std::vector<uint32_t> qzeros, tensors.load_words("qzeros"));
  const GptqZeros convention = zeros_convention(qzeros, tensors, config, layout);
  weight.zeros =
      gptq_zeros(std::move(qzeros), layout.num_groups, layout.out_features, layout.packing, convention);

  if (storage == CodeStorage::kWords && CodeWords::can_hold(weight.bits, weight.in_features)) {
    NIBBLE_TRY(Tensor qweight, tensors.load("qweight"));
    weight.words = {std::move(qweight), layout.out_features, 1};
  } else {
    NIBBLE_TRY(const std::vector<uint32_t> qweight, tensors.load_words("qweight"));
    weight.codes.resize(layout.out_features * layout.in_features);
    unpack_gptq_columns(layout.packing, qweight.data(), qweight.size() / layout.out_features,
                        layout.out_features, layout.in_features, weight.codes.data());
  }

  decoded.format = format_name(layout.packing, convention == GptqZeros::kTrue);
  return decoded;
}

Expected<ModuleSummary> summarize_gptq(const ModuleTensors& tensors, const GPTQConfig& config) {
  NIBBLE_TRY(const GptqLayout layout, read_layout(tensors, config, std::nullopt));
  ModuleSummary summary;
  summary.format = format_name(layout.packing, config.checkpoint_format == "gptq_v2");
  summary.out_features = layout.out_features;
  summary.in_features = layout.in_features;
  summary.bits = layout.packing.bits;
  summary.group_size = layout.group_size;
  summary.stored_bytes = tensors.stored_bytes(kGptqSuffixes);
  return summary;
}

}  // namespace nibble
