#ifndef NIBBLE_BASE_DTYPE_H_
#define NIBBLE_BASE_DTYPE_H_

// Element types of tensors, as safetensors spells them.

#include <cstddef>
#include <optional>
#include <string_view>

namespace nibble {

enum class DType {
  kF64,
  kF32,
  kF16,
  kBF16,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,
  kC64,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kF6E2M3,
  kF6E3M2,
  kF4,  // less than a byte each
};

// "F16", "BF16", "F8_E4M3": the names of the safetensors format.
std::string_view dtype_name(DType dtype);
std::optional<DType> dtype_from_name(std::string_view name);

size_t dtype_bits(DType dtype);
bool is_float(DType dtype);  // F64, F32, F16 or BF16

// "float16", "bfloat16", "float32", "float64", "int8", "uint8"...: the names of config.json and
// of the command line, with or without the "torch." prefix.
std::string_view torch_dtype_name(DType dtype);
std::optional<DType> dtype_from_torch_name(std::string_view name);

}  // namespace nibble

#endif  // NIBBLE_BASE_DTYPE_H_
