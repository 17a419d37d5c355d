#include "nibble/base/dtype.h"

#include <array>

namespace nibble {
namespace {

struct DTypeRow {
  DType dtype;
  size_t bits;
  std::string_view name;        // safetensors
  std::string_view torch_name;  // "" where PyTorch has no such type
};

constexpr std::array kRows = {
    DTypeRow{DType::kF64, 64, "F64", "float64"},
    DTypeRow{DType::kF32, 32, "F32", "float32"},
    DTypeRow{DType::kF16, 16, "F16", "float16"},
    DTypeRow{DType::kBF16, 16, "BF16", "bfloat16"},
    DTypeRow{DType::kI64, 64, "I64", "int64"},
    DTypeRow{DType::kI32, 32, "I32", "int32"},
    DTypeRow{DType::kI16, 16, "I16", "int16"},
    DTypeRow{DType::kI8, 8, "I8", "int8"},
    DTypeRow{DType::kU64, 64, "U64", "uint64"},
    DTypeRow{DType::kU32, 32, "U32", "uint32"},
    DTypeRow{DType::kU16, 16, "U16", "uint16"},
    DTypeRow{DType::kU8, 8, "U8", "uint8"},
    DTypeRow{DType::kBool, 8, "BOOL", "bool"},
    DTypeRow{DType::kC64, 64, "C64", "complex64"},
    DTypeRow{DType::kF8E4M3, 8, "F8_E4M3", "float8_e4m3fn"},
    DTypeRow{DType::kF8E5M2, 8, "F8_E5M2", "float8_e5m2"},
    DTypeRow{DType::kF8E8M0, 8, "F8_E8M0", "float8_e8m0fnu"},
    DTypeRow{DType::kF6E2M3, 6, "F6_E2M3", ""},
    DTypeRow{DType::kF6E3M2, 6, "F6_E3M2", ""},
    DTypeRow{DType::kF4, 4, "F4", "float4_e2m1fn_x2"},
};

const DTypeRow& row_of(DType dtype) { return kRows[static_cast<size_t>(dtype)]; }

constexpr bool rows_are_in_enum_order() {
  for (size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<size_t>(kRows[i].dtype) != i) return false;
  }
  return true;
}
static_assert(rows_are_in_enum_order());

}  // namespace

std::string_view dtype_name(DType dtype) { return row_of(dtype).name; }
std::string_view torch_dtype_name(DType dtype) { return row_of(dtype).torch_name; }
size_t dtype_bits(DType dtype) { return row_of(dtype).bits; }

bool is_float(DType dtype) {
  return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeRow& row : kRows) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_torch_name(std::string_view name) {
  constexpr std::string_view kPrefix = "torch.";
  if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  for (const DTypeRow& row : kRows) {
    if (!row.torch_name.empty() && row.torch_name == name) return row.dtype;
  }
  return std::nullopt;
}

}  // namespace nibble
