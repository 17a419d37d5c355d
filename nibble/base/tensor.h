#ifndef NIBBLE_BASE_TENSOR_H_
#define NIBBLE_BASE_TENSOR_H_

// A named-less tensor: element type, shape and bytes. Copies share the bytes: they either lie in a
// mapped file or in a buffer, which `owner` keeps alive. Immutable.

#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nibble/base/dtype.h"
#include "nibble/base/error.h"

namespace nibble {

using Shape = std::vector<size_t>;

std::string shape_name(const Shape& shape);  // "[32, 4096]"

// The product of the sizes; nothing if it does not fit 64 bits. 1 for a scalar (shape []).
std::optional<size_t> num_elements(const Shape& shape);

struct TensorInfo {
  DType dtype = DType::kF32;
  Shape shape;

  bool operator==(const TensorInfo&) const = default;
};

// Bytes of such a tensor; nothing on overflow or where sub-byte elements do not fill whole bytes.
std::optional<size_t> num_bytes(const TensorInfo& info);

struct Tensor {
  DType dtype = DType::kF32;
  Shape shape;
  std::span<const std::byte> bytes;  // little-endian, row-major; may start at any address
  std::shared_ptr<const void> owner;

  size_t size() const { return num_elements(shape).value_or(0); }
  TensorInfo info() const { return {dtype, shape}; }

  // A tensor that owns a copy of `values`; sizeof(T) must be the element size of dtype.
  template <class T>
  static Tensor of(DType dtype, Shape shape, std::vector<T> values);
};

// The values, copied out (so that an unaligned start does not matter). T must have the size of an
// element; integers are reinterpreted, never converted: read I32 words as uint32_t.
template <class T>
std::vector<T> copy_elements(const Tensor& tensor);

// F32, F16, BF16 or F64 values as float.
Expected<std::vector<float>> to_floats(const Tensor& tensor);

// Converts to another floating type, rounding to nearest even; no copy where it is one already.
Expected<Tensor> convert_tensor(const Tensor& tensor, DType dtype);

// -------------------------------------------------------------------------------------------------

template <class T>
Tensor Tensor::of(DType dtype, Shape shape, std::vector<T> values) {
  auto owner = std::make_shared<const std::vector<T>>(std::move(values));
  const auto bytes = std::as_bytes(std::span<const T>(*owner));
  return {dtype, std::move(shape), bytes, std::move(owner)};
}

template <class T>
std::vector<T> copy_elements(const Tensor& tensor) {
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), values.size() * sizeof(T));
  return values;
}

}  // namespace nibble

#endif  // NIBBLE_BASE_TENSOR_H_
