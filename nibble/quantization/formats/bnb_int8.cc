#include "nibble/quantization/formats/bnb_int8.h"

namespace nibble {
namespace {

const std::vector<std::string> kInt8Suffixes = {"weight", "SCB", "weight_format"};

// 0: rows. Old versions stored the orders of three GPU generations (1 to 3); a file without the
// tensor holds rows. The loader of the original refuses the others, and so do we.
Status check_weight_format(const ModuleTensors& tensors) {
  const TensorInfo* info = tensors.find("weight_format");
  if (info == nullptr) return {};
  NIBBLE_RETURN_IF_ERROR(tensors.require("weight_format", {DType::kU8, DType::kI8}, info->shape.size()));
  NIBBLE_TRY(const Tensor tensor, tensors.load("weight_format"));
  if (tensor.bytes.size() == 1 && tensor.bytes[0] == std::byte{0}) return {};
  if (tensor.bytes.size() != 1) {
    return fail(ErrorCode::kDataLoss, "shape {}, but must be one number", shape_name(info->shape))
        .at(tensors.where("weight_format"));
  }
  return fail(ErrorCode::kUnsupported,
              "is {}, an order made for one generation of GPUs; only 0 (rows) is read",
              static_cast<int>(tensor.bytes[0]))
      .at(tensors.where("weight_format"))
      .with_fix(
          "Quantize the model again with a current bitsandbytes, or load the original with load_in_8bit.");
}

Expected<LinearShape> read_shape(const ModuleTensors& tensors, const std::optional<LinearShape>& shape) {
  NIBBLE_TRY(const TensorInfo weight, tensors.require("weight", {DType::kI8}, 2));
  if (shape && weight.shape != Shape{shape->out_features, shape->in_features}) {
    return fail(ErrorCode::kDataLoss, "shape {}, but config.json asks for [{}, {}]", shape_name(weight.shape),
                shape->out_features, shape->in_features)
        .at(tensors.where("weight"))
        .with_fix("The file belongs to another model: check the folder.");
  }
  if (num_elements(weight.shape).value_or(0) == 0) {
    return fail(ErrorCode::kDataLoss, "shape {} is not the shape of a weight", shape_name(weight.shape))
        .at(tensors.where("weight"));
  }
  NIBBLE_RETURN_IF_ERROR(tensors.require("SCB", {DType::kF32}, 1));
  NIBBLE_RETURN_IF_ERROR(
      tensors.require_shape("SCB", {weight.shape[0]}, fmt::format("{} outputs", weight.shape[0])));
  return LinearShape{weight.shape[0], weight.shape[1]};
}

}  // namespace

Expected<DecodedModule> decode_bnb_int8(const ModuleTensors& tensors, const BitsAndBytesConfig& config,
                                        const std::optional<LinearShape>& shape) {
  NIBBLE_TRY(const LinearShape sides, read_shape(tensors, shape));
  NIBBLE_RETURN_IF_ERROR(check_weight_format(tensors));
  DecodedModule decoded;
  QuantizedWeight& weight = decoded.weight;
  weight.formula = WeightFormula::kRowAbsmax;
  weight.out_features = sides.out_features;
  weight.in_features = sides.in_features;
  weight.bits = 8;
  weight.group_size = sides.in_features;
  weight.dtype = DType::kF32;
  weight.outlier_threshold = static_cast<float>(config.llm_int8_threshold);
  NIBBLE_TRY(weight.absmax, tensors.load_finite("SCB"));
  NIBBLE_TRY(const Tensor tensor, tensors.load("weight"));
  weight.codes = copy_elements<uint8_t>(tensor);
  for (uint8_t& code : weight.codes) code ^= 0x80;  // -128..127 -> 0..255
  decoded.format = "bitsandbytes int8";
  return decoded;
}

Expected<ModuleSummary> summarize_bnb_int8(const ModuleTensors& tensors) {
  NIBBLE_TRY(const LinearShape sides, read_shape(tensors, std::nullopt));
  NIBBLE_RETURN_IF_ERROR(check_weight_format(tensors));
  ModuleSummary summary;
  summary.format = "bitsandbytes int8";
  summary.out_features = sides.out_features;
  summary.in_features = sides.in_features;
  summary.bits = 8;
  summary.group_size = sides.in_features;
  summary.stored_bytes = tensors.stored_bytes(kInt8Suffixes);
  return summary;
}

}  // namespace nibble
