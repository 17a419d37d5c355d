#include "nibble/base/tensor.h"

#include <cstdint>

#include "nibble/base/float16.h"

namespace nibble {

std::string shape_name(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::optional<size_t> num_elements(const Shape& shape) {
  size_t product = 1;
  for (const size_t size : shape) {
    if (__builtin_mul_overflow(product, size, &product)) return std::nullopt;
  }
  return product;
}

std::optional<size_t> num_bytes(const TensorInfo& info) {
  const auto elements = num_elements(info.shape);
  size_t bits = 0;
  if (!elements || __builtin_mul_overflow(*elements, dtype_bits(info.dtype), &bits)) {
    return std::nullopt;
  }
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

namespace {

template <class From, class Convert>
std::vector<float> map_elements(const Tensor& tensor, Convert convert) {
  std::vector<float> values(tensor.bytes.size() / sizeof(From));
  for (size_t i = 0; i < values.size(); ++i) {
    From element;
    std::memcpy(&element, tensor.bytes.data() + i * sizeof(From), sizeof(From));
    values[i] = convert(element);
  }
  return values;
}

template <class To, class Convert>
Tensor from_floats(const std::vector<float>& values, const Tensor& like, DType dtype, Convert convert) {
  std::vector<To> converted(values.size());
  for (size_t i = 0; i < values.size(); ++i) converted[i] = convert(values[i]);
  return Tensor::of(dtype, like.shape, std::move(converted));
}

}  // namespace

Expected<std::vector<float>> to_floats(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::kF32:
      return copy_elements<float>(tensor);
    case DType::kF16:
      return map_elements<uint16_t>(tensor, fp16_to_float);
    case DType::kBF16:
      return map_elements<uint16_t>(tensor, bf16_to_float);
    case DType::kF64:
      return map_elements<double>(tensor, [](double v) { return static_cast<float>(v); });
    default:
      return fail(ErrorCode::kUnsupported, "{} elements where floating-point values are expected",
                  dtype_name(tensor.dtype));
  }
}

Expected<Tensor> convert_tensor(const Tensor& tensor, DType dtype) {
  if (tensor.dtype == dtype) return tensor;
  NIBBLE_TRY(const std::vector<float> values, to_floats(tensor));
  switch (dtype) {
    case DType::kF32:
      return from_floats<float>(values, tensor, dtype, [](float v) { return v; });
    case DType::kF16:
      return from_floats<uint16_t>(values, tensor, dtype, float_to_fp16);
    case DType::kBF16:
      return from_floats<uint16_t>(values, tensor, dtype, float_to_bf16);
    default:
      return fail(ErrorCode::kUnsupported, "conversion to {}; float32, float16 and bfloat16 exist",
                  dtype_name(dtype));
  }
}

}  // namespace nibble
