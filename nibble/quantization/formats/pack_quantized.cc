#include "nibble/quantization/formats/pack_quantized.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "nibble/base/check.h"
#include "nibble/quantization/formats/gptq_packing.h"

namespace nibble {
namespace {

using Tensors = std::map<std::string, Tensor>;
using Infos = std::map<std::string, TensorInfo>;

const std::vector<std::string> kPackedSuffixes = {"weight_packed", "weight_scale", "weight_zero_point",
                                                  "weight_shape", "weight_g_idx"};

// Codes lie in 32-bit words as GPTQ's continuous packing has them, but along the rows of the weight.
GptqPacking packing_of(int bits) { return {.bits = bits}; }

struct PackedLayout {
  const CompressedTensorsGroup* group = nullptr;
  size_t out_features = 0;
  size_t in_features = 0;
  size_t group_size = 0;
  size_t num_groups = 0;
  DType scale_dtype = DType::kF16;
};

// What weight_shape holds: [out_features, in_features].
Expected<LinearShape> read_shape(const ModuleTensors& tensors) {
  NIBBLE_TRY(const TensorInfo info, tensors.require("weight_shape", {DType::kI64, DType::kI32}, 1));
  NIBBLE_RETURN_IF_ERROR(tensors.require_shape("weight_shape", {2}, "two sizes of a weight"));
  NIBBLE_TRY(const Tensor tensor, tensors.load("weight_shape"));
  std::vector<int64_t> sizes;
  if (info.dtype == DType::kI64) {
    sizes = copy_elements<int64_t>(tensor);
  } else {
    for (const int32_t size : copy_elements<int32_t>(tensor)) sizes.push_back(size);
  }
  if (sizes[0] <= 0 || sizes[1] <= 0 || sizes[0] > INT32_MAX || sizes[1] > INT32_MAX) {
    return fail(ErrorCode::kDataLoss, "[{}, {}] is not the shape of a weight", sizes[0], sizes[1])
        .at(tensors.where("weight_shape"))
        .with_fix("The file is damaged: fetch it again.");
  }
  return LinearShape{static_cast<size_t>(sizes[0]), static_cast<size_t>(sizes[1])};
}

Status check_against(const ModuleTensors& tensors, const std::optional<LinearShape>& wanted,
                     const LinearShape& found) {
  if (!wanted || (wanted->out_features == found.out_features && wanted->in_features == found.in_features)) {
    return {};
  }
  return fail(ErrorCode::kDataLoss, "it says {} outputs and {} inputs, but config.json asks for {} and {}",
              found.out_features, found.in_features, wanted->out_features, wanted->in_features)
      .at(tensors.where("weight_shape"))
      .with_fix("The file belongs to another model: check the folder.");
}

Expected<PackedLayout> read_layout(const ModuleTensors& tensors, const CompressedTensorsConfig& config,
                                   const std::optional<LinearShape>& shape) {
  PackedLayout layout;
  NIBBLE_TRY(layout.group, find_group(config, tensors.module()));
  NIBBLE_TRY(const LinearShape found, read_shape(tensors));
  NIBBLE_RETURN_IF_ERROR(check_against(tensors, shape, found));
  layout.out_features = found.out_features;
  layout.in_features = found.in_features;
  const GptqPacking packing = packing_of(layout.group->bits);
  NIBBLE_RETURN_IF_ERROR(tensors.require("weight_packed", {DType::kI32, DType::kU32}, 2));
  NIBBLE_RETURN_IF_ERROR(tensors.require_shape(
      "weight_packed", {found.out_features, gptq_words(found.in_features, packing).value_or(0)},
      fmt::format("{} outputs and {} inputs at {} bits", found.out_features, found.in_features,
                  packing.bits)));

  const int64_t group_size = layout.group->group_size;
  layout.group_size = group_size == -1 ? layout.in_features : static_cast<size_t>(group_size);
  if (layout.in_features % layout.group_size != 0) {
    return fail(ErrorCode::kDataLoss, "group_size {} (config.json) does not divide the {} inputs", group_size,
                layout.in_features)
        .at(tensors.module())
        .with_fix(kFetchBothAgain);
  }
  layout.num_groups = layout.in_features / layout.group_size;
  const std::string groups = fmt::format("{} outputs and {} groups of {} inputs (config.json)",
                                         layout.out_features, layout.num_groups, layout.group_size);
  NIBBLE_TRY(const TensorInfo scales, tensors.require("weight_scale", scale_dtypes(), 2));
  NIBBLE_RETURN_IF_ERROR(
      tensors.require_shape("weight_scale", {layout.out_features, layout.num_groups}, groups));
  layout.scale_dtype = scales.dtype;
  if (!layout.group->sym) {
    NIBBLE_RETURN_IF_ERROR(tensors.require("weight_zero_point", {DType::kI32, DType::kU32}, 2));
    NIBBLE_RETURN_IF_ERROR(tensors.require_shape(
        "weight_zero_point", {gptq_words(layout.out_features, packing).value_or(0), layout.num_groups},
        groups));
  } else if (tensors.has("weight_zero_point")) {
    return fail(ErrorCode::kDataLoss, "zero points, but config.json says symmetric")
        .at(tensors.where("weight_zero_point"))
        .with_fix(kFetchBothAgain);
  }
  if (tensors.has("weight_g_idx")) {
    NIBBLE_RETURN_IF_ERROR(tensors.require("weight_g_idx", {DType::kI32, DType::kI64}, 1));
    NIBBLE_RETURN_IF_ERROR(tensors.require_shape("weight_g_idx", {layout.in_features},
                                                 fmt::format("{} inputs", layout.in_features)));
  } else if (layout.group->actorder == "group" && layout.num_groups > 1) {
    return fail(ErrorCode::kDataLoss,
                "the tensor is missing, and actorder \"group\" needs it to tell {} groups "
                "apart",
                layout.num_groups)
        .at(tensors.where("weight_g_idx"))
        .with_fix("The checkpoint is incomplete: fetch it again.");
  }
  return layout;
}

// Group of each input, or nothing where it is i / group_size.
Expected<std::vector<uint32_t>> read_g_idx(const ModuleTensors& tensors, const PackedLayout& layout) {
  std::vector<uint32_t> g_idx;
  if (!tensors.has("weight_g_idx")) return g_idx;
  NIBBLE_TRY(const Tensor tensor, tensors.load("weight_g_idx"));
  std::vector<int64_t> values;
  if (tensor.dtype == DType::kI64) {
    values = copy_elements<int64_t>(tensor);
  } else {
    for (const int32_t value : copy_elements<int32_t>(tensor)) values.push_back(value);
  }
  // The library's own mark for an order that was never set.
  if (std::all_of(values.begin(), values.end(), [](int64_t v) { return v == -1; })) return g_idx;
  bool natural = true;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0 || values[i] >= static_cast<int64_t>(layout.num_groups)) {
      return fail(ErrorCode::kDataLoss, "element [{}] is {}, but there are {} groups", i, values[i],
                  layout.num_groups)
          .at(tensors.where("weight_g_idx"))
          .with_fix("The file is damaged: fetch it again.");
    }
    g_idx.push_back(static_cast<uint32_t>(values[i]));
    natural = natural && g_idx[i] == i / layout.group_size;
  }
  if (natural) g_idx.clear();
  return g_idx;
}

// [rows, columns] -> [columns, rows]
template <class T>
std::vector<T> transposed(const std::vector<T>& values, size_t rows, size_t columns) {
  std::vector<T> result(values.size());
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) result[c * rows + r] = values[r * columns + c];
  }
  return result;
}

Expected<std::vector<float>> read_zeros(const ModuleTensors& tensors, const PackedLayout& layout) {
  const size_t count = layout.num_groups * layout.out_features;
  if (layout.group->sym) {
    return std::vector<float>(count, static_cast<float>(1u << (layout.group->bits - 1)));
  }
  NIBBLE_TRY(const std::vector<uint32_t> words, tensors.load_words("weight_zero_point"));
  std::vector<uint8_t> codes(count);
  unpack_gptq_columns(packing_of(layout.group->bits), words.data(), words.size() / layout.num_groups,
                      layout.num_groups, layout.out_features, codes.data());
  return std::vector<float>(codes.begin(), codes.end());
}

// A symmetric group's zero point is not stored: it must be the middle. Others must be codes.
Expected<std::vector<uint8_t>> zero_codes(const QuantizedWeight& weight, bool sym) {
  const auto middle = static_cast<float>(1u << (weight.bits - 1));
  const auto most = static_cast<float>((1u << weight.bits) - 1);
  std::vector<uint8_t> codes;
  for (const float zero : weight.zeros) {
    if (!(zero >= 0.f && zero <= most) || zero != std::floor(zero) || (sym && zero != middle)) {
      return fail(ErrorCode::kInvalidArgument, "the zero point {} does not go into {} {} bits", zero,
                  sym ? "symmetric" : "asymmetric", weight.bits);
    }
    codes.push_back(static_cast<uint8_t>(zero));
  }
  return codes;
}

}  // namespace

Expected<DecodedModule> decode_pack_quantized(const ModuleTensors& tensors,
                                              const CompressedTensorsConfig& config,
                                              const std::optional<LinearShape>& shape, CodeStorage storage) {
  NIBBLE_TRY(const PackedLayout layout, read_layout(tensors, config, shape));
  DecodedModule decoded;
  decoded.format = kPackQuantized;
  QuantizedWeight& weight = decoded.weight;
  weight.formula = WeightFormula::kAffine;
  weight.out_features = layout.out_features;
  weight.in_features = layout.in_features;
  weight.bits = layout.group->bits;
  weight.group_size = layout.group_size;
  weight.num_groups = layout.num_groups;
  weight.rounding = layout.scale_dtype;
  weight.dtype = layout.scale_dtype;
  NIBBLE_TRY(weight.g_idx, read_g_idx(tensors, layout));
  NIBBLE_TRY(const std::vector<float> scales, tensors.load_finite("weight_scale"));
  weight.scales = transposed(scales, layout.out_features, layout.num_groups);
  NIBBLE_TRY(weight.zeros, read_zeros(tensors, layout));

  if (storage == CodeStorage::kWords && CodeWords::can_hold(weight.bits, weight.in_features)) {
    NIBBLE_TRY(Tensor packed, tensors.load("weight_packed"));
    weight.words = {std::move(packed), 1, weight.in_features / CodeWords::codes_per_word(weight.bits)};
    return decoded;
  }
  NIBBLE_TRY(const std::vector<uint32_t> words, tensors.load_words("weight_packed"));
  weight.codes.resize(layout.out_features * layout.in_features);
  const size_t row_words = words.size() / layout.out_features;
  for (size_t o = 0; o < layout.out_features; ++o) {
    unpack_gptq_row(packing_of(weight.bits), words.data() + o * row_words, layout.in_features,
                    weight.codes.data() + o * layout.in_features);
  }
  return decoded;
}

Expected<ModuleSummary> summarize_pack_quantized(const ModuleTensors& tensors,
                                                 const CompressedTensorsConfig& config) {
  NIBBLE_TRY(const PackedLayout layout, read_layout(tensors, config, std::nullopt));
  ModuleSummary summary;
  summary.format = kPackQuantized;
  summary.out_features = layout.out_features;
  summary.in_features = layout.in_features;
  summary.bits = layout.group->bits;
  summary.group_size = layout.group_size;
  summary.stored_bytes = tensors.stored_bytes(kPackedSuffixes);
  return summary;
}

Expected<Infos> pack_quantized_tensors(const CompressedTensorsGroup& group, size_t out_features,
                                       size_t in_features, DType scale_dtype) {
  if (group.bits != 2 && group.bits != 4 && group.bits != 8) {
    return fail(ErrorCode::kInvalidArgument,
                "{} bits do not go into compressed-tensors, which holds 2, 4 and 8", group.bits)
        .with_fix("gptq_p holds 2 to 8 bits.");
  }
  const size_t group_size = group.group_size == -1 ? in_features : static_cast<size_t>(group.group_size);
  if (group_size == 0 || in_features % group_size != 0) {
    return fail(ErrorCode::kInvalidArgument,
                "group_size {} does not divide the {} inputs, as compressed-tensors wants it", group_size,
                in_features)
        .with_fix("The layouts gptq, gptq_v2 and gptq_p have a short last group.");
  }
  const size_t num_groups = in_features / group_size;
  const GptqPacking packing = packing_of(group.bits);
  const auto row_words = gptq_words(in_features, packing);
  const auto zero_words = gptq_words(out_features, packing);
  if (out_features == 0 || !row_words || !zero_words) {
    return fail(ErrorCode::kInvalidArgument, "{} outputs and {} inputs are no weight", out_features,
                in_features);
  }
  Infos infos = {{"weight_packed", {DType::kI32, {out_features, *row_words}}},
                 {"weight_scale", {scale_dtype, {out_features, num_groups}}},
                 {"weight_shape", {DType::kI64, {2}}}};
  if (!group.sym) infos["weight_zero_point"] = {DType::kI32, {*zero_words, num_groups}};
  if (group.actorder == "group") infos["weight_g_idx"] = {DType::kI32, {in_features}};
  return infos;
}

Expected<Tensors> encode_pack_quantized(const QuantizedWeight& weight, const CompressedTensorsGroup& group) {
  if (weight.formula != WeightFormula::kAffine) {
    return fail(ErrorCode::kInvalidArgument,
                "the weight has no scales and integer zero points, which compressed-tensors stores");
  }
  NIBBLE_CHECK(weight.bits == group.bits);
  NIBBLE_TRY(const Infos infos,
             pack_quantized_tensors(group, weight.out_features, weight.in_features, weight.rounding));
  NIBBLE_TRY(const std::vector<uint8_t> zeros, zero_codes(weight, group.sym));
  if (!weight.g_idx.empty() && group.actorder != "group") {
    return fail(ErrorCode::kInvalidArgument, "the order of inputs is stored with actorder \"group\" only");
  }
  const auto info = [&](const char* suffix) -> const TensorInfo& { return infos.at(suffix); };
  const GptqPacking packing = packing_of(weight.bits);
  const size_t row_words = info("weight_packed").shape[1];
  std::vector<uint32_t> words(weight.out_features * row_words);
  for (size_t o = 0; o < weight.out_features; ++o) {
    pack_gptq_row(packing, weight.codes.data() + o * weight.in_features, weight.in_features,
                  words.data() + o * row_words);
  }
  Tensors tensors;
  tensors["weight_packed"] = Tensor::of(DType::kI32, info("weight_packed").shape, std::move(words));
  const Tensor scales = Tensor::of(DType::kF32, info("weight_scale").shape,
                                   transposed(weight.scales, weight.num_groups, weight.out_features));
  NIBBLE_TRY(tensors["weight_scale"], convert_tensor(scales, weight.rounding));
  tensors["weight_shape"] = Tensor::of(DType::kI64, {2},
                                       std::vector<int64_t>{static_cast<int64_t>(weight.out_features),
                                                            static_cast<int64_t>(weight.in_features)});
  if (!group.sym) {
    const Shape& shape = info("weight_zero_point").shape;
    std::vector<uint32_t> zero_words(shape[0] * shape[1]);
    pack_gptq_columns(packing, zeros.data(), weight.num_groups, weight.out_features, zero_words.data());
    tensors["weight_zero_point"] = Tensor::of(DType::kI32, shape, std::move(zero_words));
  }
  if (group.actorder == "group") {
    std::vector<int32_t> g_idx(weight.in_features);
    for (size_t i = 0; i < g_idx.size(); ++i) g_idx[i] = static_cast<int32_t>(weight.group_of(i));
    tensors["weight_g_idx"] = Tensor::of(DType::kI32, {weight.in_features}, std::move(g_idx));
  }
  return tensors;
}

}  // namespace nibble
